// SPDX-License-Identifier: MIT
// Threads for the parallel loops of one call.
#pragma once

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

namespace sofattn::python {

/// Workers that live as long as one call of attention: a pool that outlived it would hang in the child
/// of a fork, which Python's multiprocessing does. Starting one takes some ten microseconds.
class team {
public:
    using task_type = void (*)(void* data, std::int64_t i, std::int64_t thread);

    explicit team(std::int64_t threads) : threads_(threads) {}
    team(team const&) = delete;
    team& operator=(team const&) = delete;
    ~team() {
        {
            std::lock_guard const lock(mutex_);
            leave_ = true;
        }
        begin_.notify_all();
        for (std::thread& w : workers_) {
            w.join();
        }
    }

    /// A sofattn_parallel_for; `context` is a team.
    static void run(void* context, std::int64_t count, task_type task, void* data) {
        static_cast<team*>(context)->each(count, task, data);
    }

private:
    struct loop {
        task_type task = nullptr;
        void* data = nullptr;
        std::int64_t count = 0;
        std::atomic<std::int64_t> next{0};

        void take_part(std::int64_t thread) {
            for (std::int64_t i = next.fetch_add(1, std::memory_order_relaxed); i < count;
                 i = next.fetch_add(1, std::memory_order_relaxed)) {
                task(data, i, thread);
            }
        }
    };

    void each(std::int64_t count, task_type task, void* data) {
        loop now;
        now.task = task;
        now.data = data;
        now.count = count;
        hire(count - 1);
        {
            std::lock_guard const lock(mutex_);
            now_ = &now;
            busy_ = workers_.size();
            ++number_;
        }
        begin_.notify_all();
        now.take_part(0);
        std::unique_lock lock(mutex_);
        end_.wait(lock, [&] { return busy_ == 0; });
    }

    /// Up to `most` workers, as far as the system lends threads: results do not depend on how many.
    void hire(std::int64_t most) {
        auto const wanted =
            static_cast<std::size_t>(most < threads_ - 1 ? (most > 0 ? most : 0) : threads_ - 1);
        try {
            workers_.reserve(wanted);
            while (workers_.size() < wanted) {
                workers_.emplace_back(&team::work, this,
                                      static_cast<std::int64_t>(workers_.size()) + 1, number_);
            }
        } catch (std::system_error const&) { // as many as there are
        } catch (std::bad_alloc const&) {
        }
    }
    void work(std::int64_t thread, std::uint64_t seen) {
        std::unique_lock lock(mutex_);
        for (;;) {
            begin_.wait(lock, [&] { return leave_ || number_ != seen; });
            if (leave_) {
                return;
            }
            seen = number_;
            loop& now = *now_;
            lock.unlock();
            now.take_part(thread);
            lock.lock();
            if (--busy_ == 0) {
                end_.notify_one();
            }
        }
    }

    std::int64_t threads_;
    std::vector<std::thread> workers_;
    std::mutex mutex_; ///< of what follows
    std::condition_variable begin_;
    std::condition_variable end_;
    loop* now_ = nullptr;
    std::uint64_t number_ = 0; ///< of the loop
    std::size_t busy_ = 0;     ///< workers that are not done with it
    bool leave_ = false;
};

} // namespace sofattn::python
