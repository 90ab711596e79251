// SPDX-License-Identifier: MIT
#include <sofattn/io/fields.hpp>

#include <doctest/doctest.h>

#include <string>
#include <type_traits>

namespace {

struct sample {
    double time_seconds;
    int kept_count;
};
struct plain {
    int x;
};

} // namespace

BOOST_HANA_ADAPT_STRUCT(sample, time_seconds, kept_count);

using namespace sofattn;

static_assert(io::report<sample>);
static_assert(!io::report<plain>);
static_assert(!io::report<int>);

TEST_CASE("io.for_each_field: names and values, in order") {
    std::string text;
    io::for_each_field(sample{1.5, 3}, [&](std::string_view name, auto const& value) {
        text += std::string(name) + "=" + std::to_string(value) + ";";
    });
    CHECK(text == "time_seconds=1.500000;kept_count=3;");
}
