// SPDX-License-Identifier: MIT
// Checks that a broken precondition ends the program: runs it in a child process.
#pragma once

#include <doctest/doctest.h>

#include <string>

#ifdef __unix__
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstdio>

namespace sofattn::test {

/// What `work` wrote to stderr before it aborted; empty if it did not.
template <class Work>
[[nodiscard]] std::string abort_text(Work work) {
    std::array<int, 2> ends{};
    REQUIRE(pipe(ends.data()) == 0);
    std::fflush(nullptr);
    pid_t const child = fork();
    REQUIRE(child >= 0);
    if (child == 0) {
        dup2(ends[1], STDERR_FILENO);
        std::signal(SIGABRT, SIG_DFL); // doctest's own would report a failed case
        work();
        _exit(0);
    }
    close(ends[1]);
    std::string text;
    std::array<char, 256> part{};
    for (ssize_t n = 0; (n = read(ends[0], part.data(), part.size())) > 0;) {
        text.append(part.data(), static_cast<std::size_t>(n));
    }
    close(ends[0]);
    int status = 0;
    waitpid(child, &status, 0);
    return WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT ? text : std::string();
}

} // namespace sofattn::test

/// The statements must end the program with a message that contains `text`.
#define SOFATTN_CHECK_ABORTS(text, ...)                                                            \
    CHECK(::sofattn::test::abort_text([&] { __VA_ARGS__; }).find(text) != std::string::npos)
#else
#define SOFATTN_CHECK_ABORTS(text, ...) CHECK(true)
#endif
