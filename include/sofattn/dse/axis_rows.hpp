// SPDX-License-Identifier: MIT
// What every observation contributes to a covariance in one dimension, computed once per level.
#pragma once

#include <sofattn/dse/kernel.hpp>

#include <cstddef>
#include <span>
#include <vector>

namespace sofattn::dse {

/// A climb looks at thousands of points, but at few levels of each dimension: 16 tile counts in the
/// paper's space. With a row per level, a covariance with n observations costs additions and n
/// exponentials instead of (D + 1) n.
class axis_rows {
public:
    /// Of one level of one dimension, with every observation so far.
    struct row {
        double at = 0.0;
        std::vector<double> squared{}; ///< s_d^2 of the joint part
        std::vector<double> own{};     ///< the dimension's own part
    };

    explicit axis_rows(std::size_t dimensions) : places_(dimensions), kept_(dimensions) {}

    [[nodiscard]] std::size_t size() const noexcept { return size_; }
    [[nodiscard]] std::vector<double> const& places(std::size_t d) const noexcept {
        return places_[d];
    }
    void add(std::span<double const> place) {
        for (std::size_t d = 0; d < places_.size(); ++d) {
            places_[d].push_back(place[d]);
        }
        ++size_;
    }

    /// Valid until the next call for this dimension.
    [[nodiscard]] row const& operator()(kernel const& k, std::size_t d, double at) {
        axis& a = kept_[d];
        std::size_t n = 0;
        while (n < a.rows.size() && a.rows[n].at != at) {
            ++n;
        }
        if (n == a.rows.size()) {
            if (a.rows.size() < most_rows) {
                a.rows.emplace_back();
            } else { // the one that came first
                n = a.oldest;
                a.oldest = (a.oldest + 1) % most_rows;
            }
            a.rows[n] = {at, {}, {}};
        }
        row& r = a.rows[n];
        for (std::size_t j = r.squared.size(); j < size_; ++j) {
            double const away = places_[d][j] - at;
            r.squared.push_back(k.squared_distance(d, away));
            r.own.push_back(k.own(d, away));
        }
        return r;
    }

private:
    static constexpr std::size_t most_rows = 64; ///< per dimension
    struct axis {
        std::vector<row> rows{};
        std::size_t oldest = 0;
    };

    std::vector<std::vector<double>> places_; ///< [dimension][observation]
    std::vector<axis> kept_;
    std::size_t size_ = 0;
};

} // namespace sofattn::dse
