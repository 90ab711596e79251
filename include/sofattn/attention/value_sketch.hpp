// SPDX-License-Identifier: MIT
// Values in a dozen numbers: enough to tell how far an output is off, without reading the values.
#pragma once

#include <sofattn/core/element.hpp>
#include <sofattn/core/hadamard.hpp>
#include <sofattn/core/split_mix.hpp>
#include <sofattn/core/tensor.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <span>
#include <utility>
#include <vector>

namespace sofattn {

/// A random projection that keeps lengths on average: signs, a Hadamard rotation, and `size` of its
/// channels. Fixed, so that results repeat. With 12 numbers a length is within a factor 2 for more
/// than 99 of 100 vectors of recorded data (bench/RESULTS.md). Not in the paper; the subsampled
/// randomised Hadamard transform of Ailon and Chazelle (2009).
class sketch_map {
public:
    static constexpr index_t most = 12;

    sketch_map() noexcept = default;
    explicit sketch_map(index_t dims)
        : signs_(static_cast<std::size_t>(dims)),
          channels_(static_cast<std::size_t>(std::bit_ceil(static_cast<std::uint64_t>(dims)))) {
        split_mix next{0x5eed};
        for (double& sign : signs_) {
            sign = (next() & 1) != 0 ? 1.0 : -1.0;
        }
        for (std::size_t i = 0; i < channels_.size(); ++i) {
            channels_[i] = i;
        }
        for (std::size_t i = 0; i + 1 < channels_.size(); ++i) {
            std::swap(channels_[i],
                      channels_[i + static_cast<std::size_t>(next() % (channels_.size() - i))]);
        }
        wide_ = channels_.size();
        channels_.resize(std::min(wide_, static_cast<std::size_t>(most)));
    }

    [[nodiscard]] index_t size() const noexcept { return std::ssize(channels_); }

    /// vector [dims] into out [size]; buffer is made as long as it must be.
    template <class Value>
    void operator()(Value vector, std::span<double> out, std::vector<double>& buffer) const {
        buffer.assign(wide_, 0.0);
        for (std::size_t d = 0; d < signs_.size(); ++d) {
            buffer[d] = signs_[d] * vector(static_cast<index_t>(d));
        }
        hadamard_rotate(buffer);
        // Undoes the rotation's 1 / sqrt(wide), and stands for the channels that were left out.
        double const scale =
            static_cast<double>(wide_) / std::sqrt(static_cast<double>(channels_.size()));
        for (std::size_t i = 0; i < channels_.size(); ++i) {
            out[i] = scale * buffer[channels_[i]];
        }
    }

private:
    std::vector<double> signs_;         ///< [dims]
    std::vector<std::size_t> channels_; ///< that are kept
    std::size_t wide_ = 0;              ///< of the rotation
};

/// A KV head's values as certificates read them: sketches, and the ball around their mean.
class value_sketch {
public:
    value_sketch() noexcept = default;

    /// value(key, dim) is sketched; values [key, value_dim] fill the ball. They differ where a
    /// compensation knows a part of each value already.
    /// `segment`: keys that may share a mean.
    template <storage_float V, class Value>
    value_sketch(value_view<V const> values, Value value, index_t segment)
        : map_(values.template extent<axis::value_dim>()),
          centre_(static_cast<std::size_t>(values.template extent<axis::value_dim>())),
          distances_(static_cast<std::size_t>(values.template extent<axis::key>())),
          from_segment_(distances_.size()),
          sketches_({values.template extent<axis::key>(), map_.size()}) {
        index_t const keys = values.template extent<axis::key>();
        auto const dims = std::ssize(centre_);
        for (index_t k = 0; k < keys; ++k) {
            for (index_t d = 0; d < dims; ++d) {
                centre_[static_cast<std::size_t>(d)] +=
                    static_cast<double>(to_float(values(k, d))) / static_cast<double>(keys);
            }
        }
        std::vector<double> buffer;
        for (index_t k = 0; k < keys; ++k) {
            map_([&](index_t d) { return value(k, d); }, std::span(&sketches_(k, 0), size()),
                 buffer);
            double const from_centre =
                distance([&](index_t d) { return static_cast<double>(to_float(values(k, d))); });
            distances_[static_cast<std::size_t>(k)] = from_centre;
            radius_ = std::max(radius_, from_centre);
        }
        for (index_t from = 0; from < keys; from += segment) {
            measure_segment(values, from, std::min(keys, from + segment));
        }
    }

    [[nodiscard]] sketch_map const& map() const noexcept { return map_; }
    [[nodiscard]] std::size_t size() const noexcept {
        return static_cast<std::size_t>(map_.size());
    }
    [[nodiscard]] std::span<double const> of(index_t key) const noexcept {
        return std::span(&sketches_(key, 0), size());
    }
    /// Of a key's value from the mean of all.
    [[nodiscard]] double distance_of(index_t key) const noexcept {
        return distances_[static_cast<std::size_t>(key)];
    }
    /// From the mean of its segment.
    [[nodiscard]] double distance_in_segment(index_t key) const noexcept {
        return from_segment_[static_cast<std::size_t>(key)];
    }
    /// The largest distance of all from the mean of all.
    [[nodiscard]] double radius() const noexcept { return radius_; }
    /// Of any vector [value_dim] from the mean.
    template <class Value>
    [[nodiscard]] double distance(Value vector) const noexcept {
        double sum = 0;
        for (std::size_t d = 0; d < centre_.size(); ++d) {
            double const off = vector(static_cast<index_t>(d)) - centre_[d];
            sum += off * off;
        }
        return std::sqrt(sum);
    }
    /// Length of the mean.
    [[nodiscard]] double centre_length() const noexcept {
        return std::sqrt(
            std::transform_reduce(centre_.begin(), centre_.end(), centre_.begin(), 0.0));
    }

private:
    template <storage_float V>
    void measure_segment(value_view<V const> values, index_t from, index_t end) {
        auto const count = static_cast<double>(end - from);
        std::vector<double> square(static_cast<std::size_t>(end - from), 0.0);
        for (index_t d = 0; d < values.template extent<axis::value_dim>(); ++d) {
            double mean = 0;
            for (index_t k = from; k < end; ++k) {
                mean += static_cast<double>(to_float(values(k, d))) / count;
            }
            for (index_t k = from; k < end; ++k) {
                double const off = static_cast<double>(to_float(values(k, d))) - mean;
                square[static_cast<std::size_t>(k - from)] += off * off;
            }
        }
        for (index_t k = from; k < end; ++k) {
            from_segment_[static_cast<std::size_t>(k)] =
                std::sqrt(square[static_cast<std::size_t>(k - from)]);
        }
    }

    sketch_map map_;
    std::vector<double> centre_;       ///< [value_dim]
    std::vector<double> distances_;    ///< [key], from the mean of all
    std::vector<double> from_segment_; ///< [key], from the mean of the segment
    double radius_ = 0;
    tensor<double, axis::key, axis::value_dim> sketches_; ///< [key, size]
};

} // namespace sofattn
