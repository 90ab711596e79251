// SPDX-License-Identifier: MIT
// A systolic array stepped cycle by cycle: what the closed forms of hw/systolic.hpp must equal.
#pragma once

#include <sofattn/core/types.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <deque>
#include <iterator>
#include <vector>

namespace sofattn::test {

/// Operands hop from element to element, one per cycle; an element multiplies when both arrive. Knows
/// no formula: it only moves registers.
class systolic_machine {
public:
    systolic_machine(index_t rows, index_t columns)
        : rows_(rows), columns_(columns), right_moving_(static_cast<std::size_t>(rows * columns)),
          down_moving_(right_moving_), sums_(right_moving_) {}

    /// A pass whose last operand enters `cycles` from now on may begin: its sums do not meet those of
    /// the pass before on a row's bus.
    [[nodiscard]] bool can_begin(index_t cycles) const {
        return !has_run_ || now_ + cycles - last_entered_ >= columns_;
    }
    /// What enters at the edges in this cycle: operand `k` of row 0 and column 0, with the skew of
    /// the others, or a bubble.
    void feed(std::int64_t operand, bool is_last) {
        entering_.push_front({operand, is_last});
        if (is_last) {
            last_entered_ = now_ + 1;
            has_run_ = true;
        }
    }
    /// One cycle; returns how many sums were completed in it.
    index_t step() {
        if (std::ssize(entering_) == now_) {
            entering_.push_front({});
        }
        ++now_;
        index_t completed = 0;
        auto const skewed = [&](index_t by) {
            return static_cast<std::size_t>(by) < entering_.size()
                       ? entering_[static_cast<std::size_t>(by)]
                       : cell{};
        };
        for (index_t r = rows_ - 1; r >= 0; --r) {
            index_t on_bus = 0;
            for (index_t c = columns_ - 1; c >= 0; --c) {
                cell const a = c > 0 ? at(right_moving_, r, c - 1) : skewed(r);
                cell const b = r > 0 ? at(down_moving_, r - 1, c) : skewed(c);
                at(right_moving_, r, c) = a;
                at(down_moving_, r, c) = b;
                CHECK(a.operand == b.operand); // the wavefronts meet
                if (a.operand > 0) {
                    ++at(sums_, r, c).operand;
                    if (a.is_last) {
                        at(sums_, r, c).operand = 0;
                        ++on_bus;
                    }
                }
            }
            CHECK(on_bus <= 1); // a row's bus carries one sum
            completed += on_bus;
        }
        return completed;
    }

private:
    struct cell {
        std::int64_t operand = 0; ///< 0: a bubble
        bool is_last = false;
    };
    cell& at(std::vector<cell>& of, index_t r, index_t c) {
        return of[static_cast<std::size_t>(r * columns_ + c)];
    }

    index_t rows_;
    index_t columns_;
    index_t now_ = 0;
    index_t last_entered_ = 0;
    bool has_run_ = false;
    std::deque<cell> entering_; ///< youngest first
    std::vector<cell> right_moving_;
    std::vector<cell> down_moving_;
    std::vector<cell> sums_;
};

/// Passes of a run, fed to a machine as soon as it lets them in.
class pass_feeder {
public:
    pass_feeder(index_t passes, index_t depth, index_t first_pace)
        : passes_(depth > 0 ? passes : 0), depth_(depth), pace_(first_pace) {}

    [[nodiscard]] bool is_done() const { return pass_ == passes_; }

    void step(systolic_machine& array) {
        index_t const pace = pass_ == 0 ? pace_ : 1;
        if (is_done() || (wait_ == 0 && next_ == 0 && !array.can_begin(depth_ * pace))) {
            return;
        }
        if (++wait_ < pace) {
            return; // the encoders are still at this element's slice
        }
        wait_ = 0;
        ++next_;
        array.feed(next_, next_ == depth_);
        if (next_ == depth_) {
            next_ = 0;
            ++pass_;
        }
    }

private:
    index_t passes_;
    index_t depth_;
    index_t pace_;
    index_t pass_ = 0;
    index_t next_ = 0;
    index_t wait_ = 0;
};

} // namespace sofattn::test
