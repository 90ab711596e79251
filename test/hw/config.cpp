// SPDX-License-Identifier: MIT
#include "support/generators.hpp"
#include <sofattn/core/error.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/hw/config.hpp>
#include <sofattn/hw/field.hpp>
#include <sofattn/hw/workload.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <set>
#include <string>
#include <type_traits>
#include <vector>

using namespace sofattn;

namespace {

struct plain {
    int size_bytes;
};
static_assert(!hw::described<plain>);
static_assert(hw::described<hw::machine> && hw::described<hw::sram_buffer>);
static_assert(hw::field{"width_bytes_per_cycle", ""}.unit() == "bytes_per_cycle"); // the longest
static_assert(hw::field{"exp_latency_cycles", ""}.unit() == "cycles");
static_assert(hw::field{"prediction", ""}.unit().empty());
static_assert(hw::field{"bytes", ""}.unit().empty()); // of what?

template <class Description>
std::string refusal(Description const& of) {
    try {
        hw::validate(of);
    } catch (error const& e) {
        return e.what();
    }
    return "accepted";
}

/// Calls f(path, field, value) for every number and text of a description, however deep.
template <class T, class F>
void for_each_leaf(T& of, F f, std::string const& path = {}) {
    hw::for_each_field(of, [&]<class Value>(hw::field const& d, Value& value) {
        if constexpr (hw::described<Value>) {
            for_each_leaf(value, f, path + std::string(d.name) + ".");
        } else {
            f(path + std::string(d.name), d, value);
        }
    });
}

} // namespace

TEST_CASE("hw.config: the named machines are valid, differ, and are found by their names") {
    std::set<std::string> names;
    for (char const* name :
         {"sofa_28nm", "sofa_row_ready", "sofa_shared_exp", "sofa_hbm2", "sofa_ddr4", "fact",
          "energon", "spatten", "sanger", "sofa_one_port", "dense_fa2", "plain_4bit"}) {
        hw::machine const m = hw::find_machine(name);
        CHECK(refusal(m) == "accepted");
        CHECK(m.base_name == name);
        names.insert(m.base_name);
    }
    CHECK(names.size() == 12);
    CHECK_THROWS_WITH_AS((void)hw::find_machine("sofa"),
                         "hardware: base_name is \"sofa\", must be sofa_28nm or sofa_row_ready or "
                         "sofa_shared_exp or sofa_one_port or sofa_hbm2 or sofa_ddr4 or fact or "
                         "energon or spatten or sanger or "
                         "dense_fa2 or plain_4bit",
                         error);
}

TEST_CASE("hw.config: sofa_28nm has the units of Table III and IV") {
    hw::machine const m = hw::sofa_28nm();
    CHECK(m.prediction.array_rows_count * m.prediction.array_columns_count == 128 * 32);
    CHECK(m.prediction.lz_encoders_count == 128);
    CHECK(m.selection.cores_count == 128);
    CHECK(m.selection.new_inputs_count + m.selection.kept_outputs_count == 16);
    CHECK(m.generation.array_rows_count * m.generation.array_columns_count == 512);
    CHECK(m.attention.rows_count * 2 * m.attention.keys_per_row_count == 512);
    CHECK(m.attention.exp_units_count == 128);
    CHECK(m.attention.dividers_count == 128);
    CHECK(m.buffers.token.capacity_bytes == 192 * 1024);
    CHECK(m.buffers.weight.capacity_bytes == 96 * 1024);
    CHECK(m.buffers.temporary.capacity_bytes == 28 * 1024);
    CHECK(m.memory.peak_bytes_per_cycle * m.process.clock_megahertz == 256e3); // MB/s
}

TEST_CASE("hw.config: every field is explained, with unit, range and source") {
    auto const lines = hw::explain(hw::machine{});
    std::set<std::string> names;
    std::size_t leaves = 0;
    for (auto const& line : lines) {
        CAPTURE(line.name);
        CHECK(names.insert(line.name).second);
        CHECK(!line.doc.empty());
        if (!line.value.empty()) {
            ++leaves;
            CHECK(!line.limit.empty());
            CHECK(!line.unit.empty());
            CHECK(!line.source.empty());
            CHECK(line.name.ends_with(line.unit));
        }
    }
    std::size_t counted = 0;
    hw::machine m;
    for_each_leaf(m, [&](std::string const&, hw::field const&, auto const&) { ++counted; });
    CHECK(leaves == counted);
    CHECK(leaves > 40);
    CHECK(names.contains("buffers.temporary.port_bytes_per_cycle"));
}

TEST_CASE_TEMPLATE(
    "hw.described: a field out of range is refused by name, value and range; 10^4 of them",
    Description, hw::machine, hw::workload) {
    SOFATTN_GENERATOR(random);
    std::string const prefix =
        std::is_same_v<Description, hw::machine> ? "hardware: " : "workload: ";
    std::size_t leaves = 0;
    Description all;
    for_each_leaf(all, [&](std::string const&, hw::field const&, auto const&) { ++leaves; });
    int spoilt = 0;
    for (int n = 0; n < 10'000; ++n) {
        auto const chosen = random.integer<std::size_t>(0, leaves - 1);
        Description d;
        std::size_t at = 0;
        std::string expected;
        for_each_leaf(
            d, [&]<class Value>(std::string const& path, hw::field const& f, Value& value) {
                if (at++ != chosen || std::is_same_v<Value, bool>) {
                    return;
                }
                std::string shown;
                if constexpr (std::is_same_v<Value, std::string>) {
                    value = random.chance(0.5) ? "" : std::string(f.choices).substr(0, 3);
                    shown = "\"" + value + "\"";
                } else if constexpr (std::is_integral_v<Value>) {
                    value = random.chance(0.5)
                                ? static_cast<Value>(f.least) - random.integer<Value>(1, 1000)
                                : static_cast<Value>(f.most) + random.integer<Value>(1, 1000);
                    shown = std::to_string(value);
                } else {
                    int const kind = random.integer<int>(0, 3);
                    value = kind == 0   ? std::numeric_limits<double>::quiet_NaN()
                            : kind == 1 ? std::numeric_limits<double>::infinity()
                            : kind == 2 ? f.least - random.uniform(1e-3, 1e3)
                                        : f.most + random.uniform(1e-3, 1e3);
                    shown = hw::detail::number_text(value);
                }
                expected = prefix + path + " is " + shown + ", must be " + hw::limit_of(f, value);
            });
        if (!expected.empty()) { // truth values have no wrong ones
            ++spoilt;
            CHECK(refusal(d) == expected);
            CHECK(refusal(d).find('\n') == std::string::npos);
        }
    }
    CHECK(spoilt > 8'000);
}

TEST_CASE("hw.config: both ends of every range are accepted") {
    hw::machine const defaults;
    std::size_t leaves = 0;
    hw::machine all;
    for_each_leaf(all, [&](std::string const&, hw::field const&, auto const&) { ++leaves; });
    for (std::size_t chosen = 0; chosen < leaves; ++chosen) {
        for (bool const upper : {false, true}) {
            hw::machine m;
            std::size_t at = 0;
            std::string path;
            for_each_leaf(
                m, [&]<class Value>(std::string const& name, hw::field const& f, Value& value) {
                    if (at++ == chosen) {
                        path = name;
                        if constexpr (!std::is_same_v<Value, std::string>) {
                            value = static_cast<Value>(upper ? f.most : f.least);
                        }
                    }
                });
            CAPTURE(path);
            hw::check_fields(m, "");
        }
    }
}

TEST_CASE("hw.config: RASS fills the phases of the attention engine it feeds") {
    hw::machine m;
    m.attention.keys_per_row_count = 4;
    CHECK(refusal(m) ==
          "hardware: schedule.keys_per_phase_count is 2, must be attention.keys_per_row_count, 4");
    m.schedule.keys_per_phase_count = 4;
    CHECK(refusal(m) == "accepted");
}
