// SPDX-License-Identifier: MIT
// How many keys a row keeps, and which ones whatever their score.
#pragma once

#include <sofattn/core/assert.hpp>
#include <sofattn/core/error.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/sads/drop_rule.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <optional>
#include <string>
#include <utility>

namespace sofattn::sads {

/// A row's rule, in keys and logits; what a selector needs beside the scores. Paper: ratio k and
/// radius r (sections III-B and III-D). Minimum count, sinks and window are not in the paper: a
/// model that was not fine-tuned needs them.
struct budget {
    /// Share of the visible keys to keep, in (0, 1]; ignored if `count` is set.
    double ratio = 1.0;
    /// Keys to keep, whatever the row's length.
    std::optional<index_t> count{};
    /// Softmax mass to keep, estimated from predicted scores, in (0, 1]. Read by `adaptive`
    /// selectors only, which read no ratio and no count. Not in the paper.
    std::optional<double> mass{};
    /// Instead of a mass: estimated error of the output, in spreads of the values (drop_rule).
    std::optional<double> output_error{};
    /// Never fewer than this many keys (or all that are visible).
    index_t at_least = 1;
    /// Never more than this many keys, beside sinks and window; adaptive selectors only.
    std::optional<index_t> at_most{};
    /// Keys whose predicted logit is more than this below the best of their segment are dropped,
    /// even if the count allows them. The weight of a dropped key is at most exp(-radius).
    double radius = std::numeric_limits<double>::infinity();
    /// The first keys of the sequence that every row keeps.
    index_t sinks = 0;
    /// Keys around the query's own position that every row keeps: the last visible ones where the
    /// mask is causal, half of them on either side where it is not.
    index_t window = 0;

    [[nodiscard]] static budget of_ratio(double kept) {
        budget b;
        b.ratio = kept;
        return b;
    }
    [[nodiscard]] static budget of_count(index_t kept) {
        budget b;
        b.count = kept;
        return b;
    }
    [[nodiscard]] static budget of_mass(double kept) {
        budget b;
        b.mass = kept;
        return b;
    }
    [[nodiscard]] static budget of_output_error(double spreads) {
        budget b;
        b.output_error = spreads;
        return b;
    }
    /// No limit on the count.
    [[nodiscard]] static budget of_radius(double logits) {
        budget b;
        b.radius = logits;
        return b;
    }

    /// Keys a row with `visible` keys keeps, forced ones included: the ratio's nearest count, at
    /// least `at_least` and at least 1, never more than are visible.
    [[nodiscard]] index_t keys_for(index_t visible) const noexcept {
        index_t const wanted =
            count ? *count
                  : static_cast<index_t>(std::floor(ratio * static_cast<double>(visible) + 0.5));
        return std::min(visible, std::max({wanted, at_least, index_t{1}}));
    }

    /// Throws `error` for a rule that no row can follow. `keys` is the length of the sequence.
    void validate(index_t keys) const {
        if (!count && !(ratio > 0.0 && ratio <= 1.0)) {
            throw error("budget: ratio of keys kept", std::to_string(ratio), "in (0, 1]");
        }
        if (count && (*count < 1 || *count > keys)) {
            throw error("budget: count of keys kept", std::to_string(*count),
                        "from 1 to the number of keys, " + std::to_string(keys));
        }
        if (!(radius >= 0.0)) {
            throw error("budget: radius in logits", std::to_string(radius), "at least 0");
        }
        if (mass && !(*mass > 0.0 && *mass <= 1.0)) {
            throw error("budget: softmax mass kept", std::to_string(*mass), "in (0, 1]");
        }
        if (output_error && !(*output_error > 0.0 && std::isfinite(*output_error))) {
            throw error("budget: output error in spreads", std::to_string(*output_error),
                        "positive and finite");
        }
        if (mass && output_error) {
            throw error("budget: output error in spreads", std::to_string(*output_error),
                        "left out where a softmax mass is given");
        }
        if (at_most && *at_most < std::max<index_t>(1, at_least)) {
            throw error("budget: maximum count", std::to_string(*at_most),
                        "at least the minimum count, " +
                            std::to_string(std::max<index_t>(1, at_least)));
        }
        for (auto const& [what, value] :
             {std::pair{"minimum count", at_least}, {"sinks", sinks}, {"window", window}}) {
            if (value < 0) {
                throw error(std::string("budget: ") + what, std::to_string(value), "at least 0");
            }
        }
    }

    friend bool operator==(budget const&, budget const&) = default;
};

/// A budget applied to one row. Counts and drop_rule are applied to integers, so that selections are
/// exact everywhere.
struct row_rule {
    index_t visible = 0; ///< keys 0 ... visible - 1 may be attended
    index_t keep = 0;    ///< budget::keys_for(visible)
    index_t sinks = 0;
    index_t window = 0;
    double radius = std::numeric_limits<double>::infinity(); ///< in units of the predicted score
    index_t after_window = 0; ///< visible keys behind the window; none under a causal mask
    index_t at_least = 1;     ///< for adaptive selectors, never more than are visible
    index_t at_most = std::numeric_limits<index_t>::max();
    drop_rule drop{};

    /// `logit_step`: logits per unit of score, positive.
    [[nodiscard]] static row_rule of(budget const& b, index_t visible, double logit_step) noexcept {
        SOFATTN_DASSERT(logit_step > 0.0);
        row_rule rule;
        rule.visible = visible;
        rule.keep = visible > 0 ? b.keys_for(visible) : 0;
        rule.sinks = b.sinks;
        rule.window = b.window;
        rule.radius = b.radius / logit_step; // infinity stays infinity
        rule.at_least = std::min(visible, std::max<index_t>(b.at_least, 1));
        rule.at_most = b.at_most.value_or(rule.at_most);
        rule.drop.weights = weight_scale(logit_step);
        if (b.mass) {
            rule.drop = drop_rule::of_mass(*b.mass, weight_scale(logit_step));
        } else if (b.output_error) {
            rule.drop = drop_rule::of_error(*b.output_error, weight_scale(logit_step));
        }
        return rule;
    }

    /// The same with the window around `position`, moved inside where it would stick out.
    [[nodiscard]] static row_rule of(budget const& b, index_t visible, double logit_step,
                                     index_t position) noexcept {
        row_rule rule = of(b, visible, logit_step);
        index_t const end = std::max(b.window, position + b.window / 2 + 1);
        rule.after_window = visible - std::min(visible, end);
        return rule;
    }

    /// Kept whatever its score.
    [[nodiscard]] bool is_forced(index_t key) const noexcept {
        index_t const end = visible - after_window;
        return key < sinks || (key < end && key >= end - window);
    }

    /// The last grain within the radius.
    [[nodiscard]] std::int32_t grains() const noexcept {
        return drop.weights.distance(radius, 0.0) >> weight_scale::grain_bits;
    }

    /// Keys to keep among the first `keys` visible ones, if kept keys were spread evenly. The
    /// difference of two shares is a segment's budget: it never exceeds the segment, and the
    /// segments' budgets sum to `keep` (paper: each of n segments yields k / n).
    [[nodiscard]] index_t share(index_t keys) const noexcept { return share_of(keep, keys); }
    /// The same of the minimum count.
    [[nodiscard]] index_t least_share(index_t keys) const noexcept {
        return share_of(at_least, keys);
    }

private:
    [[nodiscard]] index_t share_of(index_t wanted, index_t keys) const noexcept {
        return visible == 0 ? 0 : ceil_div(wanted * keys, visible);
    }
};

} // namespace sofattn::sads
