// SPDX-License-Identifier: MIT
#include "dse/state_lock.hpp"

#include "support/temporary_folder.hpp"
#include <sofattn/core/error.hpp>

#include <doctest/doctest.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstddef>
#include <filesystem>
#include <fstream>
#include <memory>
#include <string>
#include <vector>

using namespace sofattn;
using namespace sofattn::dse;
using namespace sofattn::test;

namespace {

/// A process that has taken the lock and keeps it until it is killed.
class holder {
public:
    explicit holder(std::filesystem::path const& state) {
        std::array<int, 2> ends{};
        REQUIRE(pipe(ends.data()) == 0);
        process_ = fork();
        REQUIRE(process_ >= 0);
        if (process_ == 0) {
            state_lock const lock(state);
            static_cast<void>(!write(ends[1], "x", 1));
            for (;;) {
                pause();
            }
        }
        char told = 0;
        REQUIRE(read(ends[0], &told, 1) == 1);
        close(ends[0]);
        close(ends[1]);
    }
    holder(holder const&) = delete;
    holder& operator=(holder const&) = delete;
    ~holder() { end(); }

    void end() {
        if (process_ > 0) {
            kill(process_, SIGKILL);
            waitpid(process_, nullptr, 0);
            process_ = -1;
        }
    }
    [[nodiscard]] std::string number() const { return std::to_string(process_); }

private:
    pid_t process_ = -1;
};

} // namespace

TEST_CASE(
    "dse.state_lock: who comes second is told the file and the process, until that is killed") {
    temporary_folder const folder;
    auto const state = folder / "s.json";
    holder first(state);
    std::string const message = state.string() + " is in use by process " + first.number() +
                                ", must be used by one run at a time: wait for it, or name another "
                                "file";
    CHECK_THROWS_WITH_AS(state_lock{state}, message.c_str(), error);
    CHECK_THROWS_WITH_AS(state_lock{state}, message.c_str(), error); // asking does not let go
    state_lock const other(folder / "t.json");
    first.end();
    CHECK(std::filesystem::exists(folder / "s.json.lock"));
    state_lock const second(state);
}

TEST_CASE("dse.state_lock: nothing is left behind, and no state file is made") {
    temporary_folder const folder;
    auto const state = folder / "s.json";
    {
        state_lock const lock(state);
        CHECK(std::filesystem::exists(folder / "s.json.lock"));
    }
    CHECK(std::filesystem::is_empty(folder.path()));
}

TEST_CASE("dse.state_lock: a worker's end does not let go of it") {
    temporary_folder const folder;
    auto const state = folder / "s.json";
    auto const lock = std::make_unique<state_lock>(state);
    pid_t const worker = fork();
    REQUIRE(worker >= 0);
    if (worker == 0) {
        _exit(0);
    }
    waitpid(worker, nullptr, 0);
    pid_t const rival = fork();
    REQUIRE(rival >= 0);
    if (rival == 0) {
        try {
            state_lock const mine(state);
            _exit(0);
        } catch (error const&) {
            _exit(7);
        }
    }
    int status = 0;
    waitpid(rival, &status, 0);
    CHECK(WEXITSTATUS(status) == 7);
}

TEST_CASE("dse.state_lock: a folder that takes no file is an error that names it") {
    temporary_folder const folder;
    CHECK_THROWS_WITH_AS(state_lock{folder / "none" / "s.json"},
                         doctest::Contains("none/s.json.lock is not to be locked (No such file"),
                         error);
}

TEST_CASE("dse.state_lock: of many at once, one at a time has it") {
    temporary_folder const folder;
    auto const state = folder / "s.json";
    auto const inside = folder / "inside"; // made and removed by who has the lock
    std::vector<pid_t> all;
    for (int n = 0; n < 8; ++n) {
        pid_t const one = fork();
        REQUIRE(one >= 0);
        if (one == 0) {
            int entered = 0;
            for (int tries = 0; tries < 20000 && entered < 50; ++tries) {
                try {
                    state_lock const lock(state);
                    if (!std::filesystem::create_directory(inside)) {
                        _exit(1); // somebody else is in
                    }
                    std::filesystem::remove(inside);
                    ++entered;
                } catch (error const&) {
                    usleep(100);
                }
            }
            _exit(entered == 50 ? 0 : 2);
        }
        all.push_back(one);
    }
    for (pid_t const one : all) {
        int status = 0;
        waitpid(one, &status, 0);
        CHECK(WIFEXITED(status));
        CHECK(WEXITSTATUS(status) == 0);
    }
}
