// SPDX-License-Identifier: MIT
// `run`, compiled for some types of elements: the bits of all, and others refused.
#include "engine/carried_out.hpp"
#include "engine/coded_case.hpp"
#include "engine/engine_case.hpp"
#include "support/generators.hpp"
#include "support/guarded_workspace.hpp"
#include "support/own_threads.hpp"
#include <sofattn/core/half.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/engine/descriptor.hpp>
#include <sofattn/engine/elements.hpp>
#include <sofattn/engine/run.hpp>
#include <sofattn/engine/verdict.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <cstdint>
#include <string>

using namespace sofattn;
using namespace sofattn::test;
using engine::dtype;
using engine::elements;
using engine::verdict;

namespace {

/// A dense step by participants and by threads; the verdict of both.
template <class Compiled, class Case>
verdict attend(Case& c) {
    own_threads const team{};
    guarded_workspace workspace(engine::workspace_bytes(c.desc, team.threads()), 4);
    void* const memory = workspace.span().data();
    std::size_t const size = workspace.span().size();
    verdict const by_threads = engine::run<Compiled>(c.desc, memory, size, team);
    auto const output = c.output;
    c.clear();
    verdict const alone = engine::run<Compiled>(c.desc, memory, size, 0, 1);
    CHECK(workspace.kept_outside());
    CHECK(same_bits(c.output, output));
    CHECK(alone.code == by_threads.code);
    CHECK(std::string(alone.field) == by_threads.field);
    return alone;
}

template <class Compiled, class Case>
void check_refused(Case& c, char const* field, dtype type) {
    c.clear();
    verdict const found = attend<Compiled>(c);
    CHECK(found.code == engine::status::unsupported);
    CHECK(std::string(found.field) == field);
    CHECK(found.value == static_cast<double>(type));
    CHECK(std::string(found.limit) == "one of those that `run` was compiled for");
    CHECK(c.is_untouched());
}

template <class Compiled, class Case>
void check_bits(Case& c) {
    CHECK(attend<engine::every_element>(c).ok());
    auto const all = c.output;
    c.clear();
    CHECK(attend<Compiled>(c).ok());
    CHECK(same_bits(c.output, all));
    CHECK(!c.is_untouched());
}

} // namespace

TEST_CASE("engine.elements: those that are compiled have their bits, others are refused by name") {
    SOFATTN_GENERATOR(random);
    for (index_t const queries : {1, 9}) {
        CAPTURE(queries);
        decode_shape const shape{2, 3, queries, 200, 16, 16, true};
        engine_case<float> floats(random, shape);
        engine_case<half> halves(random, shape);
        coded_case<half> codes(random, shape);
        check_bits<elements<dtype::f32>>(floats);
        check_bits<elements<dtype::f16>>(halves);
        check_bits<elements<dtype::f16, dtype::int8>>(codes);
        check_refused<elements<dtype::f32>>(halves, "query.type", dtype::f16);
        check_refused<elements<dtype::f16>>(floats, "query.type", dtype::f32);
        check_refused<elements<dtype::f16>>(codes, "key.type", dtype::int8);
    }
}
