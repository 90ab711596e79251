// SPDX-License-Identifier: MIT
// What a row's output is worth: how much mass was dropped and how far the output is off, estimated
// and bounded.
#pragma once

#include <sofattn/attention/stages.hpp>
#include <sofattn/attention/uncertain_weights.hpp>
#include <sofattn/attention/value_sketch.hpp>
#include <sofattn/core/score_line.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>
#include <sofattn/dlzs/operands.hpp>
#include <sofattn/dlzs/policy.hpp>
#include <sofattn/dlzs/quantiser_error.hpp>
#include <sofattn/exec/executor.hpp>
#include <sofattn/sufa/logit_source.hpp>
#include <sofattn/sufa/softmax_state.hpp>
#include <sofattn/sufa/tail.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <cstddef>
#include <limits>
#include <numeric>
#include <span>
#include <vector>

namespace sofattn {

/// A row's certificate. Estimates are what the predictor believes; bounds hold whatever it believes.
struct row_certificate {
    double dropped_mass = 0;       ///< estimated softmax mass of the dropped keys
    double dropped_mass_bound = 0; ///< at least the true one; 1 where nothing is known
    double error = 0;              ///< estimated length of output - dense output, units of values
    double error_bound = 0;        ///< at least the true one
};

/// Called with (query head, query, certificate). Asking is what turns certificates on: the default
/// type asks for nothing and costs nothing.
struct ignore_rows {
    constexpr void operator()(index_t, index_t, row_certificate const&) const noexcept {}
};

namespace detail {

/// A row's books, between its runs. All weights are relative to one reference.
struct certificate_row {
    dlzs::logit_bounds bounds{};
    index_t visible = 0;
    double epsilon = 0;                                          ///< of the formal arithmetic
    double reference = -std::numeric_limits<double>::infinity(); ///< a logit
    double best = -std::numeric_limits<double>::infinity();      ///< no kept logit is larger
    uncertain_weights dropped;
    uncertain_weights reused; ///< kept keys that may have been attended with predicted logits
    /// Calibrated weights, exp(calibrated logit - reference), are what the output is made of.
    double estimate = 0;     ///< sum of those of dropped keys
    double dropped_gap = 0;  ///< sum of their differences from the weights in `dropped`
    double reused_gap = 0;   ///< the same of reused ones
    double noise_square = 0; ///< sum of their squares times the square of the value's distance
    /// Distances are those of values from the mean of all values.
    double dropped_distance = 0; ///< sum of w exp(bound of x) times the distance
    double compensated = 0;      ///< bound of the sum of calibrated weights times (v - stand-in)
    double distances = 0;        ///< of dropped values, where their mean stands in

    void rescale(double factor) noexcept {
        dropped.rescale(factor);
        reused.rescale(factor);
        for (double* x : {&estimate, &dropped_gap, &reused_gap, &dropped_distance, &compensated}) {
            *x *= factor;
        }
        noise_square *= factor * factor;
    }
};

} // namespace detail

/// Certificates of the rows of one KV head.
///
/// Dropped mass. The kept keys' weights L are exact, or known up to those of reused scores; the
/// dropped ones' sum is at most D (dlzs::quantiser_error), so the dropped mass is at most
/// D / (L + D).
///
/// Output error, estimated. The output lacks the sum over dropped keys of p (v - what stands for
/// v), p the predicted weights. The sum is taken over sketches of the values, a dozen numbers each:
/// it has the sum's length, give or take. Weights and values are correlated, so no product of a
/// spread and a sum of squares comes as close (bench/RESULTS.md). To it the typical error of those
/// logits is added that the output was made with.
///
/// Output error, bounded. With c the mean of all values, from which no value is further than the
/// radius r, weights p of the dense output and p^ of the output:
///   dense - output = sum (p - p^) (v - c) + sum over dropped keys of p^ (v - what stands for v),
/// whose first part is at most 2 r S / Z, S the sum of what the weights may be off, Z their sum.
/// Without compensation p^ = 0 for dropped keys, and with the dropped mass delta
///   dense - output = delta (mean of dropped values - output) + (1 - delta) (what reuse is off).
///
/// in     keys [key, dim] with their index, values [key, value_dim] and the same as tail_values
/// pre    nobody counts: this is no part of the circuit
/// paper  not in the paper
template <dlzs::policy Predictor, sufa::tail_policy Tail, sufa::logit_source Source>
class certifier {
public:
    template <storage_float Key, storage_float Value>
    certifier(key_view<Key const> keys, dlzs::key_index<Predictor> const& index,
              value_view<Value const> values, sufa::tail_values<Tail> const& prepared, index_t rows)
        : errors_(keys, index), values_(
                                    values,
                                    [&](index_t k, index_t d) {
                                        double const v = real(values(k, d));
                                        return is_coded ? v - coded(prepared, k, d) : v;
                                    },
                                    Tail::segment),
          rows_(static_cast<std::size_t>(rows)),
          lacking_(static_cast<std::size_t>(rows) * values_.size()),
          plain_(static_cast<std::size_t>(rows) * values_.size()), piece_(values_.size()),
          weights_(static_cast<std::size_t>(Tail::segment)) {
        for (index_t k = 0; is_coded && k < values.template extent<axis::key>(); ++k) {
            double square = 0;
            for (index_t d = 0; d < values.template extent<axis::value_dim>(); ++d) {
                double const off = real(values(k, d)) - coded(prepared, k, d);
                square += off * off;
            }
            code_error_ = std::max(code_error_, std::sqrt(square));
        }
    }

    /// Opens row `at` of the block: query `q` of head `head` of the codes.
    template <storage_float Q>
    void begin(index_t at, view<Q const, axis::dim> query,
               dlzs::query_codes<Predictor> const& codes, index_t head, index_t q, double scale,
               index_t visible, double epsilon) {
        auto const row = static_cast<std::size_t>(at);
        rows_[row] = {};
        rows_[row].bounds = errors_.row(query, codes, head, q, scale, visible, epsilon);
        rows_[row].visible = visible;
        rows_[row].epsilon = epsilon;
        std::ranges::fill(part(lacking_, row), 0.0);
        std::ranges::fill(part(plain_, row), 0.0);
    }

    /// Enters a run's keys into the books of row `at`.
    template <class Score>
    void enter(index_t at, score_line line, index_t first, std::span<Score const> scores,
               std::span<ranked<Score> const> kept) {
        auto const row = static_cast<std::size_t>(at);
        detail::certificate_row& books = rows_[row];
        is_kept_.assign(scores.size(), 0);
        for (auto const& entry : kept) {
            is_kept_[static_cast<std::size_t>(entry.key - first)] = 1;
        }
        double top = books.reference;
        for (std::size_t i = 0; i < scores.size(); ++i) {
            auto const s = static_cast<double>(scores[i]);
            double const predicted = books.bounds.line.logit(s);
            top = std::max({top, predicted, line.logit(s)});
            if (is_kept_[i] != 0) {
                double const most = predicted + bound_of(books, first + static_cast<index_t>(i));
                books.best = std::max({books.best, most, line.logit(s)});
            }
        }
        if (top > books.reference) {
            double const factor = std::exp(books.reference - top);
            books.rescale(factor);
            std::ranges::for_each(part(lacking_, row), [&](double& x) { x *= factor; });
            books.reference = top;
        }
        auto const keys = std::ssize(scores);
        for (index_t from = 0; from < keys;) {
            index_t const segment = (first + from) / Tail::segment;
            index_t const end = std::min(keys, (segment + 1) * Tail::segment - first);
            enter_segment(row, line, first, from, end, scores);
            from = end;
        }
    }

    /// Closes row `at`: `state` and `output` as they are handed out, compensation included.
    template <class Real>
    [[nodiscard]] row_certificate finish(index_t at, sufa::softmax_state<Real> const& state,
                                         std::span<float const> output) {
        auto const row = static_cast<std::size_t>(at);
        detail::certificate_row const& books = rows_[row];
        if (books.visible == 0) {
            return {};
        }
        double const top = std::max(books.reference, static_cast<double>(state.m));
        double const log_to_top = books.reference - top;
        double const to_top = std::exp(log_to_top);
        double const attended = state.is_empty() ? 0.0
                                                 : static_cast<double>(state.l) *
                                                       std::exp(static_cast<double>(state.m) - top);
        double const estimate = books.estimate * to_top;
        double const total = is_ignored ? attended + estimate : attended;

        weight_ranges const w = ranges(books, attended, estimate, log_to_top);
        row_certificate result;
        result.dropped_mass_bound = w.dropped_share();
        result.error_bound = error_bound(books, w, total, output);
        // Where logits are so large that predicted weights lie beyond those of the kept keys, there
        // is no estimate but the bounds.
        double const mass = estimate / total;
        result.dropped_mass = mass < result.dropped_mass_bound ? mass : result.dropped_mass_bound;
        double const lacking = deviation(row, output);
        double const noise = books.bounds.typical;
        double const off = std::sqrt(lacking * lacking + noise * noise * books.noise_square);
        double const error = off == 0 ? 0.0 : off * to_top / total;
        result.error = error < result.error_bound ? error : result.error_bound;
        return result;
    }

private:
    static constexpr double safe = detail::uncertain_weights::safe;
    static constexpr bool is_ignored = Tail::by == sufa::stand_in::nobody;
    static constexpr bool is_coded = Tail::by == sufa::stand_in::int8_values;

    /// What the true weights of kept and dropped keys add up to, and by how much those of the output
    /// may be off in all; relative to one reference.
    struct weight_ranges {
        double kept_least = 0;
        double dropped_least = 0;
        double dropped_most = 0;
        double kept_off = 0;
        double dropped_off = 0;
        double log_to_top = 0; ///< from the books' reference to this one

        [[nodiscard]] double dropped_share() const noexcept {
            if (dropped_most == 0) {
                return 0;
            }
            double const share = dropped_most / (kept_least + dropped_most) * safe;
            return share < 1 ? share : 1; // an unknown weight is infinite or no number
        }
        /// At least what a sum in the books is relative to this reference, however far that is.
        [[nodiscard]] double moved(double sum) const noexcept {
            if (sum == 0) {
                return 0;
            }
            double const there = std::exp(std::log(sum) + log_to_top) * safe;
            return there >= 0 ? there + std::numeric_limits<double>::min()
                              : std::numeric_limits<double>::infinity();
        }
        /// What a weight of 1 is worth, at most.
        [[nodiscard]] double each() const noexcept { return safe / (kept_least + dropped_least); }
    };

    template <class T>
    [[nodiscard]] static double real(T value) noexcept {
        return static_cast<double>(to_float(value));
    }
    [[nodiscard]] static double coded(sufa::tail_values<Tail> const& prepared, index_t key,
                                      index_t dim) noexcept {
        if constexpr (is_coded) {
            return static_cast<double>(prepared.coded(key, dim));
        } else {
            return 0.0;
        }
    }
    [[nodiscard]] std::span<double> part(std::vector<double>& of, std::size_t row) const noexcept {
        return std::span(of).subspan(row * values_.size(), values_.size());
    }
    [[nodiscard]] double bound_of(detail::certificate_row const& books,
                                  index_t key) const noexcept {
        return books.bounds.per_error * errors_.error(key) +
               books.bounds.per_size * errors_.size(key) + books.bounds.slack;
    }

    template <class Score>
    void enter_segment(std::size_t row, score_line line, index_t first, index_t from, index_t end,
                       std::span<Score const> scores) {
        detail::certificate_row& books = rows_[row];
        auto const lacking = part(lacking_, row);
        std::ranges::fill(piece_, 0.0);
        std::size_t count = 0;
        double weight = 0;
        double distances = 0;
        for (index_t i = from; i < end; ++i) {
            auto const score = static_cast<double>(scores[static_cast<std::size_t>(i)]);
            index_t const key = first + i;
            double const logit = line.logit(score);
            double const below = books.bounds.line.logit(score) - books.reference;
            double const bound = bound_of(books, key);
            double const w = std::exp(logit - books.reference);
            double const gap = std::abs(w - std::exp(below));
            double const distance = values_.distance_of(key);
            double const square = w * w * distance * distance;
            if (is_kept_[static_cast<std::size_t>(i)] != 0) {
                if (Source::reuses && logit < books.best - Source::exact_within) {
                    books.reused.add(below, bound);
                    books.reused_gap += gap;
                    books.noise_square += square;
                }
                continue;
            }
            books.dropped.add(below, bound);
            books.dropped_gap += gap;
            books.dropped_distance += std::exp(below + bound) * distance;
            books.noise_square += is_ignored ? 0.0 : square;
            auto const sketch = values_.of(key);
            for (std::size_t j = 0; j < sketch.size(); ++j) {
                lacking[j] += w * sketch[j];
                piece_[j] += sketch[j];
            }
            if constexpr (is_coded) {
                books.compensated += w * code_error_;
            } else if constexpr (Tail::by == sufa::stand_in::row_mean) {
                books.compensated += w * distance;
            }
            weights_[count++] = w;
            weight += w;
            distances += distance;
        }
        books.estimate += weight;
        if (count == 0) {
            return;
        }
        double const mean = weight / static_cast<double>(count);
        if constexpr (Tail::by == sufa::stand_in::segment_means) {
            for (std::size_t j = 0; j < piece_.size(); ++j) {
                lacking[j] -= mean * piece_[j];
            }
            // sum w (v - mean v) = sum (w - mean w) (v - any point)
            count = 0;
            for (index_t i = from; i < end; ++i) {
                if (is_kept_[static_cast<std::size_t>(i)] == 0) {
                    books.compensated +=
                        std::abs(weights_[count++] - mean) * values_.distance_in_segment(first + i);
                }
            }
        } else if constexpr (Tail::by == sufa::stand_in::row_mean) {
            auto const plain = part(plain_, row);
            for (std::size_t j = 0; j < piece_.size(); ++j) {
                plain[j] += piece_[j];
            }
            books.distances += distances;
        }
    }

    /// Length of what the output lacks, times the row's mass.
    [[nodiscard]] double deviation(std::size_t row, std::span<float const> output) {
        detail::certificate_row const& books = rows_[row];
        auto const lacking = part(lacking_, row);
        if constexpr (is_ignored) {
            values_.map()(
                [&](index_t d) { return static_cast<double>(output[static_cast<std::size_t>(d)]); },
                piece_, buffer_);
            for (std::size_t j = 0; j < lacking.size(); ++j) {
                lacking[j] -= books.estimate * piece_[j];
            }
        } else if constexpr (Tail::by == sufa::stand_in::row_mean) {
            auto const plain = part(plain_, row);
            for (std::size_t j = 0; books.dropped.count > 0 && j < lacking.size(); ++j) {
                lacking[j] -= books.estimate / books.dropped.count * plain[j];
            }
        }
        return std::sqrt(
            std::transform_reduce(lacking.begin(), lacking.end(), lacking.begin(), 0.0));
    }

    /// `attended`: the row's l; `estimate`: what compensation made of the dropped keys' weight; both
    /// relative to one reference, `log_to_top` above which the books' lies.
    [[nodiscard]] static weight_ranges ranges(detail::certificate_row const& books, double attended,
                                              double estimate, double log_to_top) noexcept {
        double const root = books.bounds.root_sum;
        double const most = books.dropped.upper(root);
        weight_ranges w;
        w.log_to_top = log_to_top;
        if (books.dropped.count > 0) {
            w.dropped_most = w.moved(most);
            w.dropped_least = books.dropped.lower(root) * std::exp(log_to_top) / safe;
            w.dropped_off = w.moved(most - books.dropped.weight + books.dropped_gap * safe);
        }
        if (books.reused.count > 0) {
            double const off = books.reused.upper(root) - books.reused.weight;
            w.kept_off = w.moved(off + books.reused_gap * safe);
        }
        w.kept_off += attended * std::expm1(books.bounds.slack);
        double const compensated = is_ignored ? 0.0 : estimate;
        double const relative = 1e-9 + 4 * books.epsilon * static_cast<double>(books.visible + 16);
        double const least =
            attended - compensated - relative * (attended + compensated) - w.kept_off;
        w.kept_least = least > 0 ? least : 0.0;
        return w;
    }

    /// `total`: weight that the output was divided by.
    [[nodiscard]] double error_bound(detail::certificate_row const& books, weight_ranges const& w,
                                     double total, std::span<float const> output) const noexcept {
        double const radius = values_.radius();
        double const from_centre = values_.distance(
            [&](index_t d) { return static_cast<double>(output[static_cast<std::size_t>(d)]); });
        double bound = 0;
        if constexpr (is_ignored) {
            double const far = w.moved(books.dropped_distance) * w.each();
            double const dropped = w.dropped_share() * radius;
            bound = (far < dropped ? far : dropped) + w.dropped_share() * from_centre +
                    2 * radius * w.kept_off / w.kept_least;
        } else {
            double compensated = books.compensated;
            if constexpr (Tail::by == sufa::stand_in::row_mean) {
                compensated += books.dropped.count > 0
                                   ? books.estimate * books.distances / books.dropped.count
                                   : 0.0;
            }
            bound =
                2 * radius * (w.kept_off + w.dropped_off) * w.each() + w.moved(compensated) / total;
        }
        // Outputs are floats, attenders within 2e-6 or what sums of a row's keys lose in the formal
        // arithmetic; a mean of dropped values is what is left of a segment's sum.
        constexpr bool has_means =
            Tail::by == sufa::stand_in::row_mean || Tail::by == sufa::stand_in::segment_means;
        double const sums = static_cast<double>(books.visible + 16) *
                                (Tail::by == sufa::stand_in::row_mean ? Tail::segment : 1) +
                            (has_means ? Tail::segment * Tail::segment : 0);
        double const rounding =
            (0x1p-18 + 4 * books.epsilon * sums) * (radius + values_.centre_length()) +
            0x1p-148 * (static_cast<double>(output.size()) + static_cast<double>(books.visible));
        double const anywhere = radius + from_centre;
        return (bound < anywhere ? bound : anywhere) * safe + rounding;
    }

    dlzs::quantiser_error<Predictor> errors_;
    value_sketch values_;
    double code_error_ = 0; ///< longest of value - code, where codes stand in
    std::vector<detail::certificate_row> rows_;
    std::vector<double> lacking_; ///< [row * sketch], of w (v - what stands for v)
    std::vector<double> plain_;   ///< [row * sketch], of dropped v, where their mean stands in
    std::vector<double> piece_;   ///< [sketch], scratch
    std::vector<double> buffer_;  ///< scratch of sketches
    std::vector<double> weights_; ///< [key of a segment], scratch
    std::vector<char> is_kept_;   ///< [key of the run], scratch
};

/// Stands in for a certifier where nobody asked for one.
struct no_certificates {};

/// Enters runs into the books, between attention and compensation.
template <class Certifier>
struct certify_step {
    Certifier* certificates;
    index_t heads;
    index_t first_query;
    index_t rows;                      // queries of the block
    std::span<score_line const> lines; // [head * rows]

    template <class X, class Score>
    run_attended<Score> operator()(X&, run_attended<Score> const& in) const {
        if constexpr (!std::same_as<Certifier, no_certificates>) {
            auto const keys = static_cast<std::size_t>(in.run.keys);
            for (index_t h = 0; h < heads; ++h) {
                index_t const at = h * rows + in.run.query - first_query;
                certificates->enter(at, lines[static_cast<std::size_t>(at)], in.run.first_key,
                                    in.scores.subspan(static_cast<std::size_t>(h) * keys, keys),
                                    in.kept);
            }
        }
        return in;
    }
};

} // namespace sofattn
