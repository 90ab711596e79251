// SPDX-License-Identifier: MIT
#include "dse/state_lock.hpp"

#include <sofattn/core/error.hpp>
#include <sofattn/io/file.hpp>

#include <fcntl.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

#include <cerrno>
#include <string>
#include <system_error>

namespace sofattn::dse {

namespace {

[[noreturn]] void fail(std::filesystem::path const& file, int number) {
    throw error(io::shown(file),
                "not to be locked (" + std::generic_category().message(number) + ")",
                "a file that locks can be set on");
}

struct flock whole_file() {
    struct flock all {};
    all.l_type = F_WRLCK;
    all.l_whence = SEEK_SET;
    return all;
}

/// Whether the name still means the file that is open: whoever let go has removed it.
bool is_current(std::filesystem::path const& file, int descriptor) {
    struct stat open {};
    struct stat named {};
    return ::fstat(descriptor, &open) == 0 && ::stat(file.c_str(), &named) == 0 &&
           open.st_dev == named.st_dev && open.st_ino == named.st_ino;
}

} // namespace

state_lock::state_lock(std::filesystem::path const& state) : file_(state) {
    file_ += ".lock";
    for (;;) {
        descriptor_ = ::open(file_.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
        if (descriptor_ < 0) {
            fail(file_, errno);
        }
        struct flock wanted = whole_file();
        if (::fcntl(descriptor_, F_SETLK, &wanted) == 0) {
            if (is_current(file_, descriptor_)) {
                return;
            }
            ::close(descriptor_);
            continue;
        }
        int const number = errno;
        struct flock other = whole_file();
        bool const is_known =
            (number == EACCES || number == EAGAIN) && ::fcntl(descriptor_, F_GETLK, &other) == 0;
        ::close(descriptor_);
        if (!is_known) {
            fail(file_, number);
        }
        if (other.l_type != F_UNLCK) { // else it was let go of between the two questions
            throw error(io::shown(state), "in use by process " + std::to_string(other.l_pid),
                        "used by one run at a time: wait for it, or name another file");
        }
    }
}

state_lock::~state_lock() {
    ::unlink(file_.c_str()); // while nobody else can have it
    ::close(descriptor_);
}

} // namespace sofattn::dse
