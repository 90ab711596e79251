// SPDX-License-Identifier: MIT
// Whether this is a build with AddressSanitizer, in which a minute of computing is ten.
#pragma once

namespace sofattn::test {

#if defined(__SANITIZE_ADDRESS__)
inline constexpr bool is_sanitized = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
inline constexpr bool is_sanitized = true;
#else
inline constexpr bool is_sanitized = false;
#endif
#else
inline constexpr bool is_sanitized = false;
#endif

} // namespace sofattn::test
