// SPDX-License-Identifier: MIT
// How much of a descriptor's work a call does: all, a participant's part, one piece.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/exec/loop_ref.hpp>

#include <limits>

namespace sofattn::engine::detail {

/// Some of a loop's tasks, or all by a caller's loop: an exec::parallel_for, and the only one that kernels are
/// compiled for here, since each takes a compiler a minute for all types and methods.
class share {
public:
    /// All tasks. `loop` must outlive it.
    [[nodiscard]] static share of_all(exec::loop_ref const& loop) noexcept {
        return {0, 1, 0, loop.threads(), &loop, nullptr};
    }
    /// Participant `ith` of `nth`: every nth task. Long ones come first, so shares are even.
    [[nodiscard]] static share of(index_t ith, index_t nth) noexcept {
        return {ith, nth, ith, nth, nullptr, nullptr};
    }
    /// One task, in memory of its own.
    [[nodiscard]] static share of_one(index_t task) noexcept {
        return {task, std::numeric_limits<index_t>::max() / 2, 0, 1, nullptr, nullptr};
    }
    /// None, but to know how many there are.
    [[nodiscard]] static share counting(index_t& tasks) noexcept {
        return {0, 1, 0, 1, nullptr, &tasks};
    }

    /// Whether loops return when all tasks are done, not only some.
    [[nodiscard]] bool is_all() const noexcept { return loop_ != nullptr; }
    [[nodiscard]] index_t threads() const noexcept { return threads_; }
    [[nodiscard]] index_t thread() const noexcept { return thread_; }

    template <class Task>
    void operator()(index_t count, Task&& task) const {
        if (counts_ != nullptr) {
            *counts_ = count;
            return;
        }
        if (loop_ != nullptr) {
            (*loop_)(count, task);
            return;
        }
        for (index_t i = first_; i < count; i += step_) {
            task(i, thread_);
        }
    }

private:
    share(index_t first, index_t step, index_t thread, index_t threads, exec::loop_ref const* loop,
          index_t* counts) noexcept
        : first_(first), step_(step), thread_(thread), threads_(threads), loop_(loop),
          counts_(counts) {}

    index_t first_;
    index_t step_;
    index_t thread_;
    index_t threads_;
    exec::loop_ref const* loop_;
    index_t* counts_;
};

} // namespace sofattn::engine::detail
