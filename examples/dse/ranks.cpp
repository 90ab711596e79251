// SPDX-License-Identifier: MIT
#include "dse/ranks.hpp"

#include <sofattn/core/error.hpp>

#include <cstdlib>

#ifdef SOFATTN_HAS_MPI

#include <mpi.h>

namespace sofattn::dse {

namespace {

constexpr int tag = 0;

} // namespace

std::unique_ptr<ranks> ranks::start() {
    MPI_Init(nullptr, nullptr); // errors end all ranks, which is MPI's own choice
    int rank = 0;
    int count = 1;
    MPI_Comm_rank(MPI_COMM_WORLD, &rank);
    MPI_Comm_size(MPI_COMM_WORLD, &count);
    return std::unique_ptr<ranks>(new ranks(rank, count));
}

ranks::~ranks() { MPI_Finalize(); }

void ranks::send(index_t to, std::string const& text) const {
    MPI_Send(text.data(), static_cast<int>(text.size()), MPI_CHAR, static_cast<int>(to), tag,
             MPI_COMM_WORLD);
}

std::optional<ranks::message> ranks::receive() const {
    int is_there = 0;
    MPI_Status status;
    MPI_Iprobe(MPI_ANY_SOURCE, tag, MPI_COMM_WORLD, &is_there, &status);
    if (is_there == 0) {
        return std::nullopt;
    }
    int size = 0;
    MPI_Get_count(&status, MPI_CHAR, &size);
    message m{status.MPI_SOURCE, std::string(static_cast<std::size_t>(size), '\0')};
    MPI_Recv(m.text.data(), size, MPI_CHAR, status.MPI_SOURCE, tag, MPI_COMM_WORLD,
             MPI_STATUS_IGNORE);
    return m;
}

std::string ranks::broadcast(std::string text) const {
    auto size = static_cast<unsigned long long>(text.size());
    MPI_Bcast(&size, 1, MPI_UNSIGNED_LONG_LONG, 0, MPI_COMM_WORLD);
    text.resize(static_cast<std::size_t>(size));
    MPI_Bcast(text.data(), static_cast<int>(size), MPI_CHAR, 0, MPI_COMM_WORLD);
    return text;
}

void ranks::abort(int exit_code) const {
    MPI_Abort(MPI_COMM_WORLD, exit_code);
    std::abort(); // not reached
}

} // namespace sofattn::dse

#else

namespace sofattn::dse {

std::unique_ptr<ranks> ranks::start() {
    throw error("--mpi", "given", "left out: this program was built without MPI");
}
ranks::~ranks() = default;
void ranks::send(index_t, std::string const&) const {}
std::optional<ranks::message> ranks::receive() const { return std::nullopt; }
std::string ranks::broadcast(std::string text) const { return text; }
void ranks::abort(int exit_code) const { std::exit(exit_code); }

} // namespace sofattn::dse

#endif
