// SPDX-License-Identifier: MIT
// Who runs independent pieces of work: one thread, OpenMP, or the caller's own.
#pragma once

#include <sofattn/core/types.hpp>

#include <concepts>
#include <utility>

#ifdef _OPENMP
#include <omp.h>
#endif

namespace sofattn::exec {

/// Runs task(i, thread) once for every i in [0, count), `thread` in [0, threads()) and no two tasks
/// at a time with the same one: it picks a piece of the workspace. Tasks must be handed out in
/// order, for the long ones come first. Results never depend on who runs what. A caller's own pool
/// meets it in a few lines.
template <class P>
concept parallel_for = requires(P const& p, index_t count, void (*task)(index_t, index_t)) {
    { p.threads() } -> std::convertible_to<index_t>;
    p(count, task);
};

/// The calling thread alone.
struct serial {
    [[nodiscard]] static constexpr index_t threads() noexcept { return 1; }

    template <std::invocable<index_t, index_t> Task>
    void operator()(index_t count, Task&& task) const {
        for (index_t i = 0; i < count; ++i) {
            task(i, index_t{0});
        }
    }
};

/// OpenMP's threads where the compiler has it, else the calling thread. Tasks must not throw.
class openmp {
public:
    /// 0: as many as OpenMP would take.
    explicit openmp(index_t threads = 0) noexcept
        : threads_(threads > 0 ? threads : most_threads()) {}

    [[nodiscard]] index_t threads() const noexcept { return threads_; }

    template <std::invocable<index_t, index_t> Task>
    void operator()(index_t count, Task&& task) const noexcept {
#ifdef _OPENMP
#pragma omp parallel for schedule(dynamic) num_threads(static_cast <int>(threads_))
        for (index_t i = 0; i < count; ++i) {
            task(i, static_cast<index_t>(omp_get_thread_num()));
        }
#else
        serial{}(count, std::forward<Task>(task));
#endif
    }

private:
    [[nodiscard]] static index_t most_threads() noexcept {
#ifdef _OPENMP
        return static_cast<index_t>(omp_get_max_threads());
#else
        return 1;
#endif
    }

    index_t threads_;
};

} // namespace sofattn::exec
