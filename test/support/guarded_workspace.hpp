// SPDX-License-Identifier: MIT
// A caller's workspace that notices who writes beside it.
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace sofattn::test {

/// Memory that starts `shift` bytes after a cache line and is followed by guard bytes.
class guarded_workspace {
public:
    explicit guarded_workspace(std::size_t bytes, std::size_t shift = 0)
        : all_(line + shift + bytes + guard, fill), bytes_(bytes) {
        auto const at = reinterpret_cast<std::uintptr_t>(all_.data());
        first_ = (line - at % line) % line + shift;
    }
    [[nodiscard]] std::span<std::byte> span() { return std::span(all_).subspan(first_, bytes_); }
    [[nodiscard]] bool kept_outside() const {
        auto const untouched = [](std::byte b) { return b == fill; };
        auto const all = std::span(all_);
        return std::ranges::all_of(all.first(first_), untouched) &&
               std::ranges::all_of(all.subspan(first_ + bytes_), untouched);
    }

private:
    static constexpr std::size_t line = 64;
    static constexpr std::size_t guard = 256;
    static constexpr std::byte fill{0xff}; ///< floats are NaN: what is read must have been written

    std::vector<std::byte> all_;
    std::size_t bytes_;
    std::size_t first_ = 0;
};

} // namespace sofattn::test
