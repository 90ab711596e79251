// SPDX-License-Identifier: MIT
// What a caller of the library may bring: its own threads, which know nothing of it.
#pragma once

#include <sofattn/core/types.hpp>

#include <atomic>
#include <concepts>
#include <thread>
#include <vector>

namespace sofattn::test {

/// Three threads, started anew for every call; each takes the next index as it gets free.
struct own_threads {
    [[nodiscard]] static constexpr index_t threads() noexcept { return 3; }

    template <std::invocable<index_t, index_t> Task>
    void operator()(index_t count, Task&& task) const {
        std::atomic<index_t> next{0};
        std::vector<std::thread> team;
        for (index_t thread = 0; thread < threads(); ++thread) {
            team.emplace_back([&next, &task, count, thread] {
                for (index_t i = next++; i < count; i = next++) {
                    task(i, thread);
                }
            });
        }
        for (auto& member : team) {
            member.join();
        }
    }
};

} // namespace sofattn::test
