// SPDX-License-Identifier: MIT
// A progress bar on standard error, if that is a terminal.
#pragma once

#include <unistd.h>

#include <cstdio>
#include <mutex>
#include <string>
#include <utility>

namespace sofattn::attend {

/// Draws at most a hundred times; may be told from any thread. Clears its line when it goes.
class progress_bar {
public:
    explicit progress_bar(bool wanted) : shown_(wanted && isatty(STDERR_FILENO) == 1) {}
    progress_bar(progress_bar const&) = delete;
    progress_bar& operator=(progress_bar const&) = delete;
    ~progress_bar() { clear(); }

    /// share in [0, 1] of everything; `what` is being worked on.
    void update(double share, std::string const& what) {
        std::scoped_lock const lock(mutex_);
        auto const percent = static_cast<int>(100 * share);
        if (!shown_ || percent == drawn_) {
            return;
        }
        drawn_ = percent;
        constexpr int width = 30;
        std::string bar(static_cast<std::size_t>(percent * width / 100), '#');
        bar.resize(width, '.');
        std::fprintf(stderr, "\r[%s] %3d %% %s\033[K", bar.c_str(), percent, what.c_str());
        std::fflush(stderr);
    }

    void clear() {
        std::scoped_lock const lock(mutex_);
        if (shown_ && drawn_ >= 0) {
            std::fputs("\r\033[K", stderr);
            std::fflush(stderr);
            drawn_ = -1;
        }
    }

private:
    bool shown_;
    int drawn_ = -1;
    std::mutex mutex_;
};

} // namespace sofattn::attend
