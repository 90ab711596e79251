// SPDX-License-Identifier: MIT
#include "calibrate/allocate.hpp"

#include <cmath>

namespace sofattn::calibrate {

namespace {

allocation at_price(std::span<std::vector<measured> const> heads, double price) {
    allocation a;
    for (auto const& settings : heads) {
        std::size_t best = 0;
        for (std::size_t s = 1; s < settings.size(); ++s) {
            auto const cost = [&](std::size_t i) {
                return settings[i].error + price * settings[i].kept_share;
            };
            best = cost(s) < cost(best) ? s : best;
        }
        a.choice.push_back(best);
        a.kept_share += settings[best].kept_share / static_cast<double>(heads.size());
        a.error += settings[best].error / static_cast<double>(heads.size());
    }
    return a;
}

/// Where one step more for a single head still fits, takes the one that gains most per cost: prices
/// alone jump from corner to corner of the heads' curves.
void refine(std::span<std::vector<measured> const> heads, target const& wanted, allocation& a) {
    auto const each = 1.0 / static_cast<double>(heads.size());
    for (bool more = true; more;) {
        more = false;
        double best_gain = 0;
        std::size_t best_head = 0;
        std::size_t best_setting = 0;
        for (std::size_t h = 0; h < heads.size(); ++h) {
            measured const& now = heads[h][a.choice[h]];
            for (std::size_t s = 0; s < heads[h].size(); ++s) {
                measured const& then = heads[h][s];
                double const kept = (then.kept_share - now.kept_share) * each;
                double const error = (then.error - now.error) * each;
                bool const fits = wanted.kept_share ? a.kept_share + kept <= *wanted.kept_share
                                                    : a.error + error <= *wanted.error;
                double const gain = wanted.kept_share ? -error : -kept;
                if (fits && gain > best_gain) {
                    best_gain = gain;
                    best_head = h;
                    best_setting = s;
                    more = true;
                }
            }
        }
        if (more) {
            measured const& now = heads[best_head][a.choice[best_head]];
            measured const& then = heads[best_head][best_setting];
            a.kept_share += (then.kept_share - now.kept_share) * each;
            a.error += (then.error - now.error) * each;
            a.choice[best_head] = best_setting;
        }
    }
}

} // namespace

std::optional<allocation> allocate(std::span<std::vector<measured> const> heads,
                                   target const& wanted) {
    std::optional<allocation> best;
    auto const reaches = [&](allocation const& a) {
        return wanted.kept_share ? a.kept_share <= *wanted.kept_share : a.error <= *wanted.error;
    };
    auto const is_better = [&](allocation const& a) {
        return !best ||
               (wanted.kept_share ? a.error < best->error : a.kept_share < best->kept_share);
    };
    constexpr int prices = 400;
    for (int p = 0; p <= prices; ++p) {
        double const price = std::pow(10.0, -6.0 + 12.0 * p / prices);
        allocation a = at_price(heads, price);
        if (reaches(a)) {
            refine(heads, wanted, a);
            if (is_better(a)) {
                best = std::move(a);
            }
        }
    }
    return best;
}

} // namespace sofattn::calibrate
