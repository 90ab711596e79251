// SPDX-License-Identifier: MIT
// Copies of this program on one machine or many, and texts between them: MPI, as little of it as does.
#pragma once

#include <sofattn/core/types.hpp>

#include <memory>
#include <optional>
#include <string>

namespace sofattn::dse {

/// This program's place among those that mpirun has started. They go through the same steps; rank 0, the
/// root, alone reads and writes files and speaks.
class ranks {
public:
    /// Once in a program. Throws `error` where it was built without MPI.
    [[nodiscard]] static std::unique_ptr<ranks> start();
    ranks(ranks const&) = delete;
    ranks& operator=(ranks const&) = delete;
    ~ranks(); ///< the others are waited for

    [[nodiscard]] index_t rank() const noexcept { return rank_; }
    [[nodiscard]] index_t count() const noexcept { return count_; }
    [[nodiscard]] bool is_root() const noexcept { return rank_ == 0; }

    struct message {
        index_t from = 0;
        std::string text;
    };
    void send(index_t to, std::string const& text) const;
    /// What has come, if anything.
    [[nodiscard]] std::optional<message> receive() const;
    /// The root's text, on every rank; all call it.
    [[nodiscard]] std::string broadcast(std::string text) const;
    /// Ends all ranks: one that has failed is waited for in vain.
    [[noreturn]] void abort(int exit_code) const;

private:
    ranks(index_t rank, index_t count) noexcept : rank_(rank), count_(count) {}

    index_t rank_;
    index_t count_;
};

} // namespace sofattn::dse
