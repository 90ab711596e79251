// SPDX-License-Identifier: MIT
#include <sofattn/core/finite.hpp>
#include <sofattn/core/half.hpp>
#include <sofattn/core/tensor.hpp>

#include <doctest/doctest.h>

#include <limits>
#include <string>

using namespace sofattn;

namespace {

template <class F>
std::string refusal(F f) {
    try {
        f();
    } catch (error const& e) {
        return e.what();
    }
    return "accepted";
}

} // namespace

TEST_CASE("core.finite: the first NaN or infinity is an error that names its position") {
    constexpr float inf = std::numeric_limits<float>::infinity();
    tensor<float, axis::head, axis::query, axis::dim> q({2, 30, 5});
    require_finite("q.npy", q.view());
    q(1, 20, 3) = std::numeric_limits<float>::quiet_NaN();
    q(1, 21, 0) = inf;
    CHECK(refusal([&] { require_finite("q.npy", q.view()); }) ==
          "q.npy: element [1, 20, 3] is nan, must be finite");
    q(0, 29, 4) = -inf;
    CHECK(refusal([&] { require_finite("q.npy", q.cview()); }) ==
          "q.npy: element [0, 29, 4] is -inf, must be finite");

    tensor<half, axis::dim> bias({4});
    bias(3) = half(inf);
    CHECK(refusal([&] { require_finite("bk.npy", bias.cview()); }) ==
          "bk.npy: element [3] is inf, must be finite");
    view<half const, axis::dim> const reversed(&bias(3), {4}, {-1});
    CHECK(refusal([&] { require_finite("bk.npy", reversed); }) ==
          "bk.npy: element [0] is inf, must be finite");
    require_finite("none", tensor<float, axis::key, axis::dim>({0, 3}).view());
}
