// SPDX-License-Identifier: MIT
#include "support/watched.hpp"
#include <sofattn/exec/executor.hpp>

#include <doctest/doctest.h>

#include <cstdint>
#include <type_traits>

using namespace sofattn;

namespace {

/// A stage in miniature: what it emits must reach whoever listens.
template <exec::executor_like X>
void emit_two_tiles(X& x) {
    x.probe.begin_tile({0, 0, 0});
    x.probe(probe::stage::selection, probe::event::compare, 44);
    x.probe.begin_tile({0, 0, 64});
    x.probe(probe::stage::selection, probe::event::compare, 88);
}

struct no_probe {
    using lanes_type = exec::scalar_lanes<1>;
    using probe_type = probe::silent;
    using real_type = double;
};

} // namespace

TEST_CASE("exec.executor: the ready-made ones differ in who listens") {
    exec::reference reference;
    exec::counting counting;
    exec::hardware hardware;
    emit_two_tiles(reference);
    emit_two_tiles(counting);
    emit_two_tiles(hardware);
    CHECK(reference.probe == probe::silent{});
    CHECK(counting.probe.count(probe::event::compare) == 132);
    CHECK(hardware.probe.tiles().size() == 2);
    CHECK(hardware.probe.total() == counting.probe);
    static_assert(std::is_same_v<exec::reference::lanes_type, exec::hardware::lanes_type>);
    static_assert(std::is_same_v<exec::reference::real_type, double>);
}

TEST_CASE("exec.executor: the concept asks for lanes, a listener and a real type") {
    static_assert(exec::executor_like<exec::reference> && exec::executor_like<exec::counting> &&
                  exec::executor_like<exec::hardware> &&
                  exec::executor_like<test::watched_executor>);
    static_assert(exec::executor_like<exec::executor<exec::scalar_lanes<8>, probe::silent, float>>);
    static_assert(exec::executor_like<exec::simd> && exec::on_registers<exec::simd>);
    static_assert(!exec::on_registers<exec::reference> && !exec::on_registers<exec::hardware>);
    static_assert(!exec::executor_like<no_probe>);
    CHECK_FALSE(exec::executor_like<int>);
}

TEST_CASE("exec.executor: the silent one is empty, and numbers are those of its lanes") {
    static_assert(std::is_empty_v<exec::reference> && std::is_empty_v<exec::simd>);
    static_assert(std::is_same_v<exec::reference::number<std::int32_t>, std::int32_t>);
    static_assert(std::is_same_v<test::watched_executor::number<double>, test::watched<double>>);
    CHECK(sizeof(exec::counting) == sizeof(probe::ledger));
}
