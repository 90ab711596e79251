// SPDX-License-Identifier: MIT
// Made-up long contexts with an answer that can be checked, in the style of RULER (arXiv 2404.06654).
#pragma once

#include "lm/decoder.hpp"
#include "lm/method.hpp"
#include "lm/perplexity.hpp"
#include "lm/tokenizer.hpp"
#include <sofattn/core/types.hpp>
#include <sofattn/exec/parallel.hpp>
#include <sofattn/io/fields.hpp>

#include <array>
#include <cstdint>
#include <functional>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace sofattn::lm {

enum class task_kind {
    needle,    ///< one fact, and others like it, in a haystack: one key matters
    variables, ///< a chain of assignments in a haystack: some keys matter, one after the other
    words      ///< the most frequent words of a list: many keys matter a little
};
inline constexpr std::array all_tasks{task_kind::needle, task_kind::variables, task_kind::words};

[[nodiscard]] std::string_view name_of(task_kind kind) noexcept;
/// error  no such task
[[nodiscard]] task_kind find_task(std::string_view name);

/// A text, and how it should go on.
struct task_text {
    std::string prompt;
    std::string answer; ///< begins with a space
};

/// The longest text of its kind with at most `tokens` tokens, prompt and answer together. The same
/// seed gives the same facts on every machine, whatever the length.
///
/// in     length  tokens of a text
/// error  no room even without a haystack
[[nodiscard]] task_text make_task(task_kind kind, index_t tokens, std::uint64_t seed,
                                  std::function<index_t(std::string const&)> const& length);

/// A sample as a model reads it.
struct task_sample {
    task_kind kind{};
    std::uint64_t seed = 0;
    std::vector<token_id> tokens; ///< prompt, then answer
    index_t prompt_tokens = 0;
    std::string answer;
};

/// `context` tokens at most, the model's first one included if `bos` is given.
/// error  as make_task
[[nodiscard]] task_sample tokenised(task_kind kind, index_t context, std::uint64_t seed,
                                    tokenizer const& text, std::optional<token_id> bos);

/// One method on the samples of one kind.
struct task_report {
    std::string task;
    std::string method;
    index_t samples = 0;
    double exact_share = 0;  ///< samples whose answer a greedy model would give, token for token
    double answer_loss = 0;  ///< nats per token of the answer
    double mean_kl_nats = 0; ///< of the answer's predictions, from the first method's
    double same_top_share = 0;
    double kept_share = 0; ///< of the answer's rows, mean over layers
};

/// In the order of kinds, then methods.
/// error  as judge_window; a context longer than the model was made for
[[nodiscard]] std::vector<task_report> judge_tasks(decoder const& model,
                                                   std::span<task_sample const> samples,
                                                   std::span<attention_method const> methods,
                                                   exec::openmp const& run,
                                                   on_progress const& progress);

[[nodiscard]] std::string to_text(std::span<task_report const> reports);

} // namespace sofattn::lm

// clang-format off
BOOST_HANA_ADAPT_STRUCT(sofattn::lm::task_report,
    task, method, samples, exact_share, answer_loss, mean_kl_nats, same_top_share, kept_share);
// clang-format on
