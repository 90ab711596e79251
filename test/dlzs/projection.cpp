// SPDX-License-Identifier: MIT
#include <sofattn/dlzs/projection.hpp>

#include <doctest/doctest.h>

#include <array>

using namespace sofattn;
using axis::channel;
using axis::dim;
using axis::value_dim;

TEST_CASE("dlzs.projection: sizes come from the weights, the bias may be absent") {
    std::array<float, 6> const weights{};
    std::array<float, 3> const bias{0.5f, 1.5f, 2.5f};
    dlzs::projection<float, dim> const plain{
        view<float const, channel, dim>(weights.data(), {2, 3})};
    CHECK(plain.channels() == 2);
    CHECK(plain.dims() == 3);
    CHECK_FALSE(plain.has_bias());
    CHECK(plain.bias_at(2) == 0.0f);
    CHECK(plain.rotation == nullptr);

    dlzs::projection<float, dim> const biased{plain.weights,
                                              view<float const, dim>(bias.data(), {3})};
    CHECK(biased.has_bias());
    CHECK(biased.bias_at(2) == 2.5f);
}

TEST_CASE("dlzs.projection: V has its own dimension, and any storage type") {
    std::array<half, 6> const weights{};
    std::array<half, 2> const bias{half(1.0f), half(-0.25f)};
    dlzs::projection<half, value_dim> const v{
        view<half const, channel, value_dim>(weights.data(), {3, 2},
                                             {1, 3}), // stored [dim, channel]
        view<half const, value_dim>(bias.data(), {2})};
    CHECK(v.channels() == 3);
    CHECK(v.dims() == 2);
    CHECK(v.bias_at(1) == -0.25f);
}
