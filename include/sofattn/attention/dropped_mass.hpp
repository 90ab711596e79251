// SPDX-License-Identifier: MIT
// How much of a row's softmax lies on keys that it does not attend to, estimated from some of them.
#pragma once

#include <sofattn/attention/problem.hpp>
#include <sofattn/core/assert.hpp>
#include <sofattn/core/split_mix.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/core/view.hpp>

#include <algorithm>
#include <array>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>
#include <span>

namespace sofattn {

/// [head, query] share of a row's softmax on keys that it does not attend to; no data: nobody asks.
///
/// Of best and of listed keys it is estimated from exact logits: up to 256 of the keys that the row sees are
/// drawn, one from each of as many equal stretches; those of them that are not attended to, times visible /
/// 256, make W. The share is W / (W + l), where l is the weight of the kept keys and of a learned sink. W is
/// unbiased, and exact where no more than 256 keys are seen. Its standard deviation is that of a draw per
/// stretch: sqrt(sum over stretches of (visible / 256)^2 * variance of the dropped weights within the stretch). One
/// heavy key that a selection missed is likely to be missed here, too: this is no bound. Of budgets it is
/// the weight by predicted logits that compensation gives to dropped keys, beside that of the kept ones.
using dropped_mass = view<float, axis::head, axis::query>;

namespace detail {

/// Draws of keys, of which those are left out that are attended to. The same for the same keys: results do
/// not depend on who runs it.
class dropped_sample {
public:
    static constexpr index_t most = 256;

    explicit dropped_sample(key_range sees) noexcept
        : first_(sees.from), visible_(std::max<index_t>(sees.to - sees.from, 0)),
          count_(std::min(visible_, most)) {
        double const stretch = each();
        for (index_t i = 0; i < count_; ++i) {
            double const at = visible_ > most ? (static_cast<double>(i) + part(i)) * stretch
                                              : static_cast<double>(i);
            drawn_[static_cast<std::size_t>(i)] =
                static_cast<key_id>(first_ + std::min(static_cast<index_t>(at), visible_ - 1));
        }
    }

    /// That key is attended to. pre: it is seen
    void leave_out(index_t key) noexcept {
        // The stretch that holds it, and its neighbours: a key may lie in two.
        index_t const middle = (key - first_) * count_ / visible_;
        for (index_t i = std::max<index_t>(middle - 1, 0); i <= std::min(middle + 1, count_ - 1);
             ++i) {
            key_id& drawn = drawn_[static_cast<std::size_t>(i)];
            drawn = drawn == static_cast<key_id>(key) ? left_out : drawn;
        }
    }
    /// Those that are not attended to, ascending; one may be there twice. Once, after all are left out.
    [[nodiscard]] std::span<key_id> keys() noexcept {
        auto const all = std::span(drawn_).first(static_cast<std::size_t>(count_));
        return {all.begin(), std::remove(all.begin(), all.end(), left_out)};
    }
    /// Keys that one draw stands for.
    [[nodiscard]] double each() const noexcept {
        return count_ == 0 ? 1.0 : static_cast<double>(visible_) / static_cast<double>(count_);
    }
    /// From the weights of kept and of drawn keys, in octaves; -inf: there are none.
    [[nodiscard]] float share(float kept, float drawn) const noexcept {
        if (!(drawn > -std::numeric_limits<float>::infinity())) {
            return 0.0f;
        }
        double const beside = std::exp2(static_cast<double>(kept) - static_cast<double>(drawn));
        return static_cast<float>(1.0 / (1.0 + beside / each()));
    }

private:
    static constexpr key_id left_out = -1;

    /// In [0, 1), for draw i: SplitMix64 of it and of how many are seen.
    [[nodiscard]] double part(index_t i) const noexcept {
        auto const x = static_cast<std::uint64_t>(visible_) << 8 | static_cast<std::uint64_t>(i);
        return static_cast<double>(split_mix::mixed((x + 1) * split_mix::step) >> 32) * 0x1p-32;
    }

    index_t first_;
    index_t visible_;
    index_t count_;
    std::array<key_id, static_cast<std::size_t>(most)> drawn_;
};

} // namespace detail

} // namespace sofattn
