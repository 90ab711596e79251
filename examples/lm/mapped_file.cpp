// SPDX-License-Identifier: MIT
#include "lm/mapped_file.hpp"

#include <sofattn/core/error.hpp>
#include <sofattn/io/file.hpp>

#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <system_error>

namespace sofattn::lm {

mapped_file::mapped_file(std::filesystem::path const& path) {
    io::input_file const checked(path); // says what is wrong, and the size
    name_ = checked.name;
    if (checked.size == 0) {
        return; // nothing can be mapped of it
    }
    int const file = open(path.c_str(), O_RDONLY | O_CLOEXEC); // NOLINT: variadic, as POSIX has it
    auto const size = static_cast<std::size_t>(checked.size);
    void* const start =
        file < 0 ? MAP_FAILED : mmap(nullptr, size, PROT_READ, MAP_PRIVATE, file, 0);
    int const why = errno;
    if (file >= 0) {
        close(file);
    }
    if (start == MAP_FAILED) {
        throw error(name_, "not mappable (" + std::generic_category().message(why) + ")",
                    "a file that memory can show");
    }
    bytes_ = {static_cast<std::byte const*>(start), size};
}

mapped_file::~mapped_file() {
    if (!bytes_.empty()) {
        munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
    }
}

} // namespace sofattn::lm
