// SPDX-License-Identifier: MIT
// What an engine is told instead of an exception: a status, and what, value and limit.
#pragma once

#include <cinttypes>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>

namespace sofattn::engine {

/// The numbers are those of the C interface; new ones come at the end.
enum class status : std::int32_t {
    ok = 0,
    null_pointer = 1,        ///< memory that is needed is not given
    out_of_range = 2,        ///< a number is none that the field may have
    mismatch = 3,            ///< two fields do not fit each other
    misaligned = 4,          ///< a pointer or stride is no multiple of its elements
    overlapping = 5,         ///< two rows of the output lie on each other
    unsupported = 6,         ///< well formed, but this library does not do it (yet)
    workspace_too_small = 7, ///< less than workspace_bytes
    not_finite = 8,          ///< NaN or infinity where they are refused
    no_free_page = 9,        ///< a cache's pool is full; nothing was changed
    out_of_memory = 10,      ///< the heap is exhausted; nothing was changed
    foreign_data = 11        ///< bytes that are no export of this library's, or of another version
};

[[nodiscard]] constexpr char const* name_of(status s) noexcept {
    switch (s) {
    case status::ok: return "ok";
    case status::null_pointer: return "null_pointer";
    case status::out_of_range: return "out_of_range";
    case status::mismatch: return "mismatch";
    case status::misaligned: return "misaligned";
    case status::overlapping: return "overlapping";
    case status::unsupported: return "unsupported";
    case status::workspace_too_small: return "workspace_too_small";
    case status::not_finite: return "not_finite";
    case status::no_free_page: return "no_free_page";
    case status::out_of_memory: return "out_of_memory";
    case status::foreign_data: return "foreign_data";
    }
    return "unknown";
}

/// Texts are literals: a verdict owns nothing and may be kept.
struct [[nodiscard]] verdict {
    status code = status::ok;
    char const* field = ""; ///< as in attention_desc, e.g. "key.token_stride"
    double value = 0;       ///< found there
    char const* limit = ""; ///< "must be ..."

    [[nodiscard]] constexpr bool ok() const noexcept { return code == status::ok; }
};

/// Writes "sofattn: FIELD is VALUE, must be LIMIT (STATUS)", cut to `bytes` with the zero at its end; returns
/// the length of the whole, as snprintf does.
inline std::size_t sentence(verdict const& v, char* into, std::size_t bytes) noexcept {
    int written = 0;
    if (v.ok()) {
        written = std::snprintf(into, bytes, "sofattn: ok");
    } else if (v.code == status::null_pointer) {
        written = std::snprintf(into, bytes, "sofattn: %s is null, must be %s (%s)", v.field,
                                v.limit, name_of(v.code));
    } else if (std::abs(v.value) < 0x1p63 && std::trunc(v.value) == v.value) {
        written = std::snprintf(into, bytes, "sofattn: %s is %" PRId64 ", must be %s (%s)", v.field,
                                static_cast<std::int64_t>(v.value), v.limit, name_of(v.code));
    } else {
        written = std::snprintf(into, bytes, "sofattn: %s is %g, must be %s (%s)", v.field, v.value,
                                v.limit, name_of(v.code));
    }
    return written < 0 ? 0 : static_cast<std::size_t>(written);
}

} // namespace sofattn::engine
