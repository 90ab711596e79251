// SPDX-License-Identifier: MIT
// Sparse attention of one recorded layer, with the recommended preset.
#include <sofattn/sofattn.hpp>

#include <cstdio>

int main() {
    using namespace sofattn;
    auto const q = io::read_npy("examples/data/tinyllama_L16_q.npy")
                       .to_tensor<axis::head, axis::query, axis::dim>();
    auto const k = io::read_npy("examples/data/tinyllama_L16_k.npy")
                       .to_tensor<axis::kv_head, axis::key, axis::dim>();
    auto const v = io::read_npy("examples/data/tinyllama_L16_v.npy")
                       .to_tensor<axis::kv_head, axis::key, axis::value_dim>();

    problem<float> const layer{q.view(), k.view(), v.view(), /*causal=*/true};
    tensor<float, axis::head, axis::query, axis::value_dim> output({8, 2048, 64});
    exec::reference x;
    presets::attention<presets::recommended> const attend(presets::recommended::options(0.01));
    attention_result const result = attend(x, layer, output.view());

    std::printf("kept %.1f %% of the query-key pairs\n", 100 * result.kept_share());
    std::printf("head 0, last token: %.4f %.4f %.4f ...\n", output(0, 2047, 0), output(0, 2047, 1),
                output(0, 2047, 2));
}
