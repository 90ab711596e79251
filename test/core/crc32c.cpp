// SPDX-License-Identifier: MIT
#include "support/generators.hpp"
#include <sofattn/core/crc32c.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

using namespace sofattn;
using namespace sofattn::test;

namespace {

/// The definition: polynomial division, a bit at a time.
std::uint32_t by_bits(std::span<std::byte const> bytes) {
    std::uint32_t crc = 0xffffffff;
    for (std::byte const b : bytes) {
        crc ^= std::to_integer<std::uint32_t>(b);
        for (int bit = 0; bit < 8; ++bit) {
            crc = (crc >> 1) ^ ((crc & 1u) != 0 ? 0x82f63b78u : 0u);
        }
    }
    return ~crc;
}

} // namespace

TEST_CASE("core.crc32c: published checksums (RFC 3720, appendix B.4)") {
    std::array<std::byte, 32> bytes{};
    CHECK(crc32c(bytes) == 0x8a9136aa);
    bytes.fill(std::byte{0xff});
    CHECK(crc32c(bytes) == 0x62a8ab43);
    for (std::size_t i = 0; i < bytes.size(); ++i) {
        bytes[i] = static_cast<std::byte>(i);
    }
    CHECK(crc32c(bytes) == 0x46dd794e);
    std::string_view const digits = "123456789";
    CHECK(crc32c(std::as_bytes(std::span(digits))) == 0xe3069283);
    CHECK(crc32c({}) == 0);
}

TEST_CASE("core.crc32c: is polynomial division, in parts of any size") {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 200; ++round) {
        std::vector<std::byte> bytes(random.integer<std::size_t>(0, 100));
        for (std::byte& b : bytes) {
            b = static_cast<std::byte>(random.integer(0, 255));
        }
        std::uint32_t const whole = crc32c(bytes);
        CHECK(whole == by_bits(bytes));
        auto const cut = random.integer<std::size_t>(0, bytes.size());
        CHECK(crc32c(std::span(bytes).subspan(cut), crc32c(std::span(bytes).first(cut))) == whole);
        if (!bytes.empty()) {
            auto const bit = random.integer<unsigned>(0, 7);
            bytes[random.integer<std::size_t>(0, bytes.size() - 1)] ^=
                static_cast<std::byte>(1u << bit);
            CHECK(crc32c(bytes) != whole);
        }
    }
}
