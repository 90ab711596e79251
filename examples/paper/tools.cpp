// SPDX-License-Identifier: MIT
#include "paper/tools.hpp"

#include "hw/json_file.hpp"
#include <sofattn/core/error.hpp>
#include <sofattn/io/file.hpp>

#include <fcntl.h>
#include <poll.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <chrono>
#include <csignal>
#include <cstdint>
#include <system_error>

namespace sofattn::paper {

namespace {

using clock = std::chrono::steady_clock;

constexpr int not_started = 127; // as shells have it

[[noreturn]] void fail(std::string const& what) {
    throw error(what, std::generic_category().message(errno), "possible on this machine");
}

/// The child: nothing in, nothing out but messages. Only what a fork of a threaded program may do.
[[noreturn]] void become(std::vector<char*> const& line, int messages) {
    prctl(PR_SET_PDEATHSIG, SIGKILL); // nobody would read the result
    int const nothing = open("/dev/null", O_RDWR);
    if (nothing >= 0 && dup2(nothing, STDIN_FILENO) >= 0 && dup2(nothing, STDOUT_FILENO) >= 0 &&
        dup2(messages, STDERR_FILENO) >= 0) {
        execv(line.front(), line.data());
    }
    _exit(not_started);
}

/// All that comes until the pipe is closed; `in_time` becomes false at the deadline.
std::string read_all(int from, clock::time_point deadline, bool& in_time) {
    constexpr std::size_t most = 1 << 16; // of a program that goes on and on, the end counts
    std::string text;
    std::array<char, 4096> piece{};
    while (true) {
        auto const left =
            std::chrono::duration_cast<std::chrono::milliseconds>(deadline - clock::now()).count();
        pollfd waiting{from, POLLIN, 0};
        int const ready =
            left <= 0 ? 0 : poll(&waiting, 1, static_cast<int>(std::min<std::int64_t>(left, 1000)));
        if (ready < 0 && errno != EINTR) {
            fail("poll");
        }
        if (ready == 0 && left <= 0) {
            in_time = false;
            return text;
        }
        if (ready > 0) {
            ssize_t const got = read(from, piece.data(), piece.size());
            if (got == 0) {
                return text;
            }
            if (got < 0 && errno != EINTR) {
                fail("read");
            }
            text.append(piece.data(), static_cast<std::size_t>(std::max<ssize_t>(got, 0)));
            text.erase(0, text.size() > most ? text.size() - most : 0);
        }
    }
}

std::string last_line(std::string text) {
    while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) {
        text.pop_back();
    }
    std::size_t const line = text.find_last_of("\r\n");
    return io::shown(line == std::string::npos ? text : text.substr(line + 1));
}

std::string status_text(int status) {
    return WIFSIGNALED(status) ? "signal " + std::to_string(WTERMSIG(status))
                               : "exit status " + std::to_string(WEXITSTATUS(status));
}

/// Runs to the end; throws unless it ends with 0 and in time.
void run_to_end(std::string const& name, words line, double most_seconds) {
    std::array<int, 2> ends{};
    if (pipe2(ends.data(), O_CLOEXEC) != 0) {
        fail("pipe");
    }
    std::vector<char*> pointers;
    for (std::string& word : line) {
        pointers.push_back(word.data());
    }
    pointers.push_back(nullptr);
    pid_t const child = fork();
    if (child == 0) {
        become(pointers, ends[1]);
    }
    close(ends[1]);
    if (child < 0) {
        close(ends[0]);
        fail("fork");
    }
    bool in_time = true;
    std::string messages;
    try {
        messages = read_all(ends[0],
                            clock::now() + std::chrono::duration_cast<clock::duration>(
                                               std::chrono::duration<double>(most_seconds)),
                            in_time);
    } catch (...) {
        close(ends[0]);
        ::kill(child, SIGKILL);
        waitpid(child, nullptr, 0);
        throw;
    }
    close(ends[0]);
    if (!in_time) {
        ::kill(child, SIGKILL);
    }
    int status = 0;
    while (waitpid(child, &status, 0) < 0) {
        if (errno != EINTR) {
            fail("waitpid");
        }
    }
    if (!in_time) {
        throw error(name + ": time", "longer",
                    "at most " + std::to_string(static_cast<long long>(most_seconds)) + " s");
    }
    if (WIFEXITED(status) && WEXITSTATUS(status) == not_started && messages.empty()) {
        throw error(name, "not started", "a program beside this one, or in --tools");
    }
    if (status != 0) {
        throw error(name, status_text(status) + " (" + last_line(messages) + ")",
                    "run without a fault");
    }
}

} // namespace

json tools::run(std::string const& program, words const& arguments, std::string const& name) {
    std::filesystem::path const result = results_ / (name + ".json");
    words line{program};
    line.insert(line.end(), arguments.begin(), arguments.end());
    line.insert(line.end(), {"--json", result.string()});
    std::string command;
    for (std::string const& word : line) {
        command += (command.empty() ? "" : " ") + word;
    }
    note(command);
    line.front() = (programs_ / program).string();
    std::error_code code;
    std::filesystem::create_directories(results_, code);
    if (code) {
        throw error(io::shown(results_), "not a folder (" + code.message() + ")",
                    "one that can be written to");
    }
    std::error_code ignored;
    std::filesystem::remove(result, ignored); // of an earlier run: must not be taken for this one's
    run_to_end(program, std::move(line), most_seconds_);
    constexpr std::uintmax_t most_bytes = 64 << 20;
    return hw::read_json<json>(result, most_bytes);
}

} // namespace sofattn::paper
