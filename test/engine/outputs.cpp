// SPDX-License-Identifier: MIT
// Outputs in 16 bits: those in f32, rounded to nearest, whatever attends and whoever runs it.
#include "attention/rounded_outputs.hpp"
#include "engine/carried_out.hpp"
#include "engine/coded_case.hpp"
#include "engine/engine_case.hpp"
#include "engine/who_runs.hpp"
#include "support/generators.hpp"
#include "support/guarded_workspace.hpp"
#include "support/own_threads.hpp"
#include <sofattn/attention/dense.hpp>
#include <sofattn/core/bfloat16.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/core/types.hpp>
#include <sofattn/engine/check.hpp>
#include <sofattn/engine/descriptor.hpp>
#include <sofattn/engine/run.hpp>

#include <doctest/doctest.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <numeric>
#include <string>
#include <vector>

using namespace sofattn;
using namespace sofattn::test;
using engine::attention_desc;
using engine::method;

namespace {

/// A descriptor of any method, and what it points to.
template <class Case>
struct random_call {
    explicit random_call(generator& random)
        : c(random, {random.integer<index_t>(1, 2), random.integer<index_t>(1, 3),
                     std::array<index_t, 4>{1, 3, 9, 40}[random.integer<std::size_t>(0, 3)],
                     page * random.integer<index_t>(3, 20), 16, random.integer<index_t>(1, 70),
                     random.chance(0.7)}) {
        attention_desc& d = c.desc;
        bool const coded = d.key.type == engine::dtype::int8;
        d.dense_below = 0;
        d.how = static_cast<method>(random.integer(0, 4));
        if (coded && d.how == method::budget) {
            d.how = method::listed;
        }
        d.products = static_cast<dense_products>(random.integer(0, coded ? 1 : 2));
        bool const in_pages = d.how != method::budget && random.chance(0.4);
        if (d.products == dense_products::int8 && (in_pages || d.how == method::pages)) {
            d.products = dense_products::f32;
        }
        if (d.how == method::best_keys) {
            c.index();
            d.count = 20;
            d.recent = 3;
            d.heads_together = random.chance(0.5);
        } else if (d.how == method::budget) {
            c.prefill_index();
            d.mass = 0.7;
        } else if (d.how == method::pages) {
            c.page_index();
            d.mass = 0.7;
        } else if (d.how == method::listed) {
            constexpr std::int64_t slots = 11;
            for (std::int64_t i = 0; i < d.heads * d.queries * slots; ++i) {
                lists.push_back(random.integer<std::int32_t>(-1, 200));
            }
            d.lists = {lists.data(), nullptr, d.heads, slots, 1, 1};
        }
        if (in_pages) {
            numbers.resize(static_cast<std::size_t>(d.keys / page));
            std::iota(numbers.begin(), numbers.end(), 0);
            random.shuffle(numbers);
            d.pages = {numbers.data(), d.keys / page, page, d.keys / page};
        }
    }

    static constexpr index_t page = 10;
    Case c;
    std::vector<std::int32_t> lists;
    std::vector<std::int32_t> numbers;
};

/// Into outputs of type T, by participants and by threads.
template <class T>
void check_type(generator& random, attention_desc d, decode_output const& wanted) {
    watched_outputs<T> found(random, wanted.cview().extents(), true);
    auto const to = found.outputs();
    constexpr auto bytes = static_cast<std::int64_t>(sizeof(T));
    d.output = {to.data(), to.strides()[0] * bytes, to.strides()[1] * bytes, dtype_of<T>};
    engine::verdict const valid = engine::check(d);
    CAPTURE(valid.field);
    REQUIRE(valid.ok());
    std::int64_t const nth = random.integer<std::int64_t>(1, 3);
    guarded_workspace workspace(engine::workspace_bytes(d, nth), 4);
    for (std::int64_t ith = 0; ith < nth; ++ith) {
        CHECK(engine::run(d, workspace.span().data(), workspace.span().size(), ith, nth).ok());
    }
    CHECK(found.hold(wanted.cview()));
    own_threads const team{};
    guarded_workspace other(engine::workspace_bytes(d, team.threads()), 4);
    CHECK(engine::run(d, other.span().data(), other.span().size(), team).ok());
    CHECK(found.hold(wanted.cview()));
    CHECK((workspace.kept_outside() && other.kept_outside()));
}

} // namespace

TEST_CASE_TEMPLATE("engine.outputs: in 16 bits they are those in f32, rounded to nearest", Case,
                   engine_case<float>, engine_case<half>, coded_case<float>) {
    SOFATTN_GENERATOR(random);
    for (int round = 0; round < 80; ++round) {
        random_call<Case> call(random);
        attention_desc const& d = call.c.desc;
        CAPTURE(static_cast<int>(d.how));
        CAPTURE(static_cast<int>(d.products));
        CAPTURE(d.queries);
        CAPTURE(d.v_dim);
        CAPTURE(d.pages.count);
        decode_output const wanted = ran(call.c);
        check_type<float>(random, d, wanted);
        check_type<half>(random, d, wanted);
        check_type<bfloat16>(random, d, wanted);
    }
}

TEST_CASE("engine.outputs: rows of 16 bits may lie as close as they are long") {
    SOFATTN_GENERATOR(random);
    engine_case<> c(random, {1, 2, 9, 70, 8, 5, true});
    std::vector<half> memory(2 * 9 * 5 + 1);
    c.desc.output = {memory.data() + 1, 9 * 5 * 2, 5 * 2, engine::dtype::f16};
    CHECK(engine::check(c.desc).ok());
    c.desc.output.type = engine::dtype::f32;
    CHECK_FALSE(engine::check(c.desc).ok());
    c.desc.output = {memory.data(), 9 * 5 * 2, 4 * 2, engine::dtype::f16};
    engine::verdict const found = engine::check(c.desc);
    CHECK(found.code == engine::status::overlapping);
    CHECK(std::string(found.field) == "output.token_stride");
    c.desc.output = {memory.data(), 9 * 5 * 2, 5 * 2, engine::dtype::int8};
    CHECK(std::string(engine::check(c.desc).field) == "output.type");
    CHECK(engine::workspace_bytes(c.desc, 1) == 0);
}
