// SPDX-License-Identifier: MIT
// A parallel loop without its type.
#pragma once

#include <sofattn/core/types.hpp>
#include <sofattn/exec/parallel.hpp>

#include <concepts>
#include <memory>
#include <type_traits>

namespace sofattn::exec {

/// Refers to one of a loop's pieces of work, without its type.
class task_ref {
public:
    template <class Task>
        requires(std::invocable<Task&, index_t, index_t> &&
                 !std::same_as<std::remove_cv_t<Task>, task_ref>)
    explicit task_ref(Task& task) noexcept
        : what_(const_cast<void*>(static_cast<void const*>(std::addressof(task)))),
          call_([](void* what, index_t i, index_t thread) {
              (*static_cast<Task*>(what))(i, thread);
          }) {}

    void operator()(index_t i, index_t thread) const { call_(what_, i, thread); }

private:
    void* what_;
    void (*call_)(void*, index_t, index_t);
};

/// Refers to a caller's exec::parallel_for, which must outlive it, and is one. Kernels that take it are
/// compiled once, whoever runs them; a task costs one more call.
class loop_ref {
public:
    template <parallel_for Loop>
        requires(!std::same_as<Loop, loop_ref>)
    explicit loop_ref(Loop const& loop) noexcept
        : loop_(std::addressof(loop)), threads_(static_cast<index_t>(loop.threads())),
          run_([](void const* what, index_t count, task_ref task) {
              (*static_cast<Loop const*>(what))(count, task);
          }) {}

    [[nodiscard]] index_t threads() const noexcept { return threads_; }

    template <std::invocable<index_t, index_t> Task>
    void operator()(index_t count, Task&& task) const {
        run_(loop_, count, task_ref(task));
    }

private:
    void const* loop_;
    index_t threads_;
    void (*run_)(void const*, index_t, task_ref);
};

} // namespace sofattn::exec
