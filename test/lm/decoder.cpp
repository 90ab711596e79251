// SPDX-License-Identifier: MIT
#include "lm/decoder.hpp"

#include "lm/generate.hpp"
#include "lm/method.hpp"
#include "lm/tiny_model.hpp"
#include "support/generators.hpp"
#include <sofattn/core/error.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <vector>

using namespace sofattn;
using namespace sofattn::test;

namespace {

std::vector<lm::token_id> random_tokens(generator& random, index_t count) {
    std::vector<lm::token_id> tokens;
    for (index_t t = 0; t < count; ++t) {
        tokens.push_back(random.integer<lm::token_id>(0, 255));
    }
    return tokens;
}

lm::attend_layer attending(lm::attention_method const& method, exec::openmp const& run) {
    return [&](index_t layer, problem<float> const& given, lm::attention_output output) {
        static_cast<void>(method.attend({given, output, layer, 0, run}));
    };
}

/// Logits of tokens behind those of the cache, [token][vocabulary].
std::vector<std::vector<float>> logits_of(lm::decoder const& model,
                                          std::span<lm::token_id const> tokens, lm::kv_cache& cache,
                                          lm::attend_layer const& attend,
                                          exec::openmp const& run = exec::openmp(1)) {
    auto const states = model(tokens, cache, attend, run);
    std::vector<std::vector<float>> logits;
    for (index_t t = 0; t < std::ssize(tokens); ++t) {
        logits.emplace_back(static_cast<std::size_t>(model.config().vocabulary));
        model.logits(states.data() + t * model.config().hidden, 1, logits.back().data(), run);
    }
    return logits;
}

/// Largest difference of two lists of logits.
template <class A, class B>
double off(std::vector<std::vector<A>> const& a, std::vector<std::vector<B>> const& b) {
    REQUIRE(a.size() == b.size());
    double most = 0;
    for (std::size_t t = 0; t < a.size(); ++t) {
        REQUIRE(a[t].size() == b[t].size());
        for (std::size_t i = 0; i < a[t].size(); ++i) {
            most = std::max(most,
                            std::abs(static_cast<double>(a[t][i]) - static_cast<double>(b[t][i])));
        }
    }
    return most;
}

std::vector<tiny_shape> all_shapes() {
    tiny_shape const plain;
    std::vector<tiny_shape> shapes(9, plain);
    shapes[1].dtype = "F16";
    shapes[2].dtype = "BF16";
    shapes[3].tied = true;
    shapes[4].attention_bias = shapes[4].mlp_bias = true;
    shapes[5].architecture = "Qwen2ForCausalLM";
    shapes[6].stretched = true;
    shapes[7].kv_heads = 4; // no groups
    shapes[8].architecture = "MistralForCausalLM";
    shapes[8].heads = 6;
    shapes[8].kv_heads = 1;
    shapes[8].head_dim = 10; // not hidden / heads, nor whole registers
    return shapes;
}

} // namespace

TEST_CASE("lm.decoder: computes what the formulas say, in every form of the family") {
    SOFATTN_GENERATOR(random);
    auto const dense = lm::dense_method();
    exec::openmp const run(1);
    for (auto const& shape : all_shapes()) {
        CAPTURE(shape.architecture);
        CAPTURE(shape.dtype);
        CAPTURE(shape.head_dim);
        tiny_model const tiny(shape, random.next());
        lm::decoder const model(tiny.folder.path());
        auto const tokens = random_tokens(random, 70);
        lm::kv_cache cache(model.config(), 70);
        auto const logits = logits_of(model, tokens, cache, attending(dense, run));
        CHECK(cache.size() == 70);
        CHECK(off(logits, tiny.logits(tokens)) < 2e-4); // logits of several units
    }
}

TEST_CASE("lm.decoder: decoding over the cache gives prefill's logits, in pieces of any size") {
    SOFATTN_GENERATOR(random);
    auto const dense = lm::dense_method();
    exec::openmp const run(1);
    for (auto const& shape : all_shapes()) {
        CAPTURE(shape.architecture);
        tiny_model const tiny(shape, random.next());
        lm::decoder const model(tiny.folder.path());
        auto const tokens = random_tokens(random, 90);
        lm::kv_cache whole(model.config(), 90);
        auto const expected = logits_of(model, tokens, whole, attending(dense, run));

        lm::kv_cache cache(model.config(), 90);
        lm::decode_attention attend(model.config(), 4096, std::nullopt, run);
        lm::decode_attention sparse(model.config(), 4096, 1000, run); // all keys, through the index
        std::vector<std::vector<float>> logits;
        for (index_t at = 0; at < 90;) {
            index_t const count = std::min<index_t>(random.chance(0.6) ? 1 : 7, 90 - at);
            auto const part = std::span(tokens).subspan(static_cast<std::size_t>(at),
                                                        static_cast<std::size_t>(count));
            if (random.chance(0.3)) { // as if those tokens had been proposed and rejected
                static_cast<void>(logits_of(model, part, cache, std::ref(attend)));
                cache.truncate(at);
                attend.truncate(at);
            }
            auto const some = random.chance(0.5)
                                  ? logits_of(model, part, cache, attending(dense, run))
                                  : logits_of(model, part, cache, std::ref(attend));
            logits.insert(logits.end(), some.begin(), some.end());
            at += count;
        }
        CHECK(off(logits, expected) < 1e-4);

        cache.truncate(0);
        logits.clear();
        for (std::size_t t = 0; t < 90; ++t) {
            if (random.chance(0.2)) { // other keys, which the index must forget
                std::vector<lm::token_id> const other = random_tokens(random, 1);
                static_cast<void>(logits_of(model, other, cache, std::ref(sparse)));
                cache.truncate(static_cast<index_t>(t));
                sparse.truncate(static_cast<index_t>(t));
            }
            auto const one =
                logits_of(model, std::span(tokens).subspan(t, 1), cache, std::ref(sparse));
            logits.push_back(one[0]);
        }
        CHECK(off(logits, expected) < 1e-4);
        CHECK(sparse.counts().kept == sparse.counts().visible);
    }
}

TEST_CASE("lm.decoder: the same bits for any number of threads") {
    SOFATTN_GENERATOR(random);
    tiny_shape shape;
    shape.dtype = "BF16";
    tiny_model const tiny(shape, random.next());
    lm::decoder const model(tiny.folder.path());
    auto const tokens = random_tokens(random, 600);
    auto const dense = lm::dense_method();
    lm::kv_cache cache(model.config(), 600);
    exec::openmp const one(1);
    exec::openmp const three(3);
    auto const alone = model(tokens, cache, attending(dense, one), one);
    cache.truncate(0);
    CHECK(model(tokens, cache, attending(dense, three), three) == alone);
}

TEST_CASE("lm.decoder: weights that do not fit the configuration are refused by name") {
    auto const says = [](tiny_model const& tiny, std::vector<std::string> const& parts) {
        tiny.write();
        try {
            lm::decoder const model(tiny.folder.path());
            FAIL("was read");
        } catch (error const& e) {
            std::string const message = e.what();
            CAPTURE(message);
            for (auto const& part : parts) {
                CAPTURE(part);
                CHECK(message.find(part) != std::string::npos);
            }
        }
    };
    {
        tiny_model tiny;
        std::erase_if(tiny.tensors(), [](auto const& t) { return t.name == "model.norm.weight"; });
        says(tiny, {"model.norm.weight", "missing"});
    }
    {
        tiny_model tiny;
        tiny.shape.hidden = 26;
        says(tiny, {"model.embed_tokens.weight", "(258, 24)", "(258, 26)"});
    }
    {
        tiny_model tiny;
        tiny.tensors().push_back(
            {"model.layers.0.self_attn.q_norm.weight", "F32", {1}, std::string(4, '\0')});
        says(tiny, {"q_norm.weight", "left out", "config.json"});
    }
    {
        tiny_model tiny;
        tiny.shape.attention_bias = true;
        says(tiny, {"self_attn.q_proj.bias", "missing"});
    }
    {
        tiny_model tiny;
        tiny.shape.layers = 1;
        says(tiny, {"model.layers.1.", "left out"});
    }
    {
        tiny_model tiny;
        auto& t = tiny.tensors().front();
        t.dtype = "I32";
        says(tiny, {"model.embed_tokens.weight", "dtype is I32"});
    }
    tiny_model const tiny;
    lm::decoder const model(tiny.folder.path());
    lm::kv_cache cache(model.config(), 4);
    for (lm::token_id const wrong : {-1, 258}) {
        std::vector<lm::token_id> const tokens{1, wrong};
        CHECK_THROWS_AS(static_cast<void>(model(tokens, cache, {}, exec::openmp(1))), error);
        CHECK(cache.size() == 0);
    }
}

TEST_CASE("lm.decoder: tables that old files hold, and copies of a tied head, are passed over") {
    tiny_shape shape;
    shape.tied = true;
    tiny_model tiny(shape);
    tiny.tensors().push_back(
        {"model.layers.0.self_attn.rotary_emb.inv_freq", "F32", {1}, std::string(4, '\0')});
    tiny.tensors().push_back({"lm_head.weight", "F32", {1}, std::string(4, '\0')});
    tiny.write();
    CHECK(lm::decoder(tiny.folder.path()).weight_bytes() > 0);
}
