// SPDX-License-Identifier: MIT
#include "dse/head_curves.hpp"

#include <sofattn/core/assert.hpp>

#include <algorithm>
#include <cmath>
#include <utility>

namespace sofattn::dse {

namespace {

/// Settings that are put between two measured ones: 10 % of an error each, which moves a head's KL
/// by a fifth, and the sum over heads by next to nothing.
constexpr std::size_t parts = 12;

double between(double a, double b, double share) {
    // Zero has no logarithm; a head that loses nothing is as good as one that loses this.
    constexpr double least = 1e-15;
    return std::exp((1 - share) * std::log(std::max(a, least)) +
                    share * std::log(std::max(b, least)));
}

std::vector<head_sample> refined(std::vector<head_sample> const& measured) {
    std::vector<head_sample> fine;
    for (std::size_t s = 0; s + 1 < measured.size(); ++s) {
        head_sample const& a = measured[s];
        head_sample const& b = measured[s + 1];
        for (std::size_t p = s == 0 ? 0 : 1; p <= parts; ++p) {
            double const share = static_cast<double>(p) / static_cast<double>(parts);
            fine.push_back({between(a.spreads, b.spreads, share),
                            between(a.kept_share, b.kept_share, share), between(a.kl, b.kl, share),
                            between(a.error_relative, b.error_relative, share)});
        }
    }
    return fine;
}

} // namespace

std::vector<std::vector<double>> head_allocation::spreads() const {
    std::vector<std::vector<double>> all;
    for (auto const& layer : heads) {
        all.emplace_back();
        for (head_sample const& h : layer) {
            all.back().push_back(h.spreads);
        }
    }
    return all;
}

head_curves::head_curves(std::vector<std::vector<std::vector<head_sample>>> const& samples)
    : layers_(samples.size()), heads_(samples.empty() ? 0 : samples.front().size()) {
    SOFATTN_ASSERT(layers_ > 0 && heads_ > 0);
    for (auto const& layer : samples) {
        SOFATTN_ASSERT(layer.size() == heads_);
        for (auto const& head : layer) {
            SOFATTN_ASSERT(head.size() >= 2 && head.size() == samples[0][0].size());
            fine_.push_back(refined(head));
        }
    }
}

head_allocation head_curves::of(std::vector<std::size_t> const& choice) const {
    head_allocation a;
    for (std::size_t h = 0; h < choice.size(); ++h) {
        if (h % heads_ == 0) {
            a.heads.emplace_back();
        }
        head_sample const& s = fine_[h][choice[h]];
        a.heads.back().push_back(s);
        a.predicted_kl += s.kl;
        a.kept_share += s.kept_share / static_cast<double>(choice.size());
    }
    return a;
}

std::vector<std::size_t> head_curves::at_price(std::vector<double> const& layer_weights,
                                               double price) const {
    std::vector<std::size_t> choice;
    for (std::size_t h = 0; h < fine_.size(); ++h) {
        auto const cost = [&](head_sample const& s) {
            return layer_weights[h / heads_] * s.kl + price * s.kept_share;
        };
        auto const best =
            std::min_element(fine_[h].begin(), fine_[h].end(),
                             [&](auto const& a, auto const& b) { return cost(a) < cost(b); });
        choice.push_back(static_cast<std::size_t>(best - fine_[h].begin()));
    }
    return choice;
}

void head_curves::fill(std::vector<double> const& layer_weights, double predicted_kl,
                       std::vector<std::size_t>& choice) const {
    double left = predicted_kl - of(choice).predicted_kl;
    for (bool more = true; more;) {
        more = false;
        double best_gain = 0; // kept share per KL
        std::size_t best_head = 0;
        std::size_t best_setting = 0;
        for (std::size_t h = 0; h < fine_.size(); ++h) {
            head_sample const& now = fine_[h][choice[h]];
            for (std::size_t s = 0; s < fine_[h].size(); ++s) {
                double const kl = fine_[h][s].kl - now.kl;
                double const saved = now.kept_share - fine_[h][s].kept_share;
                double const gain = saved / std::max(kl * layer_weights[h / heads_], 1e-30);
                if (saved > 0 && kl <= left && gain > best_gain) {
                    best_gain = gain;
                    best_head = h;
                    best_setting = s;
                    more = true;
                }
            }
        }
        if (more) {
            left -= fine_[best_head][best_setting].kl - fine_[best_head][choice[best_head]].kl;
            choice[best_head] = best_setting;
        }
    }
}

head_allocation head_curves::at(std::vector<double> const& layer_weights,
                                double predicted_kl) const {
    SOFATTN_ASSERT(layer_weights.size() == layers_);
    // A higher price of a key buys more KL.
    constexpr double widest = 40; // logarithms of prices: KL and shares are far within
    double low = -widest;
    double high = widest;
    if (auto all = of(at_price(layer_weights, std::exp(high))); all.predicted_kl <= predicted_kl) {
        return all;
    }
    std::vector<std::size_t> choice = at_price(layer_weights, std::exp(low));
    if (of(choice).predicted_kl > predicted_kl) {
        return of(std::vector<std::size_t>(fine_.size(), 0));
    }
    for (int step = 0; step < 60; ++step) {
        double const middle = (low + high) / 2;
        auto trial = at_price(layer_weights, std::exp(middle));
        if (of(trial).predicted_kl <= predicted_kl) {
            low = middle;
            choice = std::move(trial);
        } else {
            high = middle;
        }
    }
    fill(layer_weights, predicted_kl, choice);
    return of(choice);
}

} // namespace sofattn::dse
