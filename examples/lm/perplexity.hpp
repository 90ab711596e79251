// SPDX-License-Identifier: MIT
// How well a model predicts a text under several ways to attend, and how far from dense it gets.
#pragma once

#include "lm/decoder.hpp"
#include "lm/method.hpp"
#include "lm/tokenizer.hpp"
#include <sofattn/core/types.hpp>
#include <sofattn/exec/parallel.hpp>
#include <sofattn/io/fields.hpp>

#include <functional>
#include <span>
#include <string>
#include <vector>

namespace sofattn::lm {

/// One predicted token.
struct token_judgement {
    double loss = 0;      ///< negative log likelihood of the text's token, nats
    double kl = 0;        ///< of this prediction from that of the first method, nats
    bool same_top = true; ///< as the first method's most likely token
    bool is_top = false;  ///< the text's token is the most likely one
};

/// One method on one window of text.
struct window_outcome {
    std::vector<token_judgement> tokens; ///< [token - first]
    std::vector<pair_counts> layers;     ///< [layer], from the first query that predicts one on
    double attention_seconds = 0;
    double total_seconds = 0; ///< embedding to logits
};

/// share in [0, 1] of the window; what is being worked on
using on_progress = std::function<void(double share, std::string const& what)>;

/// Runs a window under every method, and judges the predictions of tokens `first` on.
///
/// in     window   [token]
///        first    from 1 to one less than there are
///        methods  [method], at least one; the first is what others are compared with
/// out    [method]
/// error  a token that the model does not have; a method that does not fit the model
[[nodiscard]] std::vector<window_outcome>
judge_window(decoder const& model, std::span<token_id const> window, index_t first,
             std::span<attention_method const> methods, exec::openmp const& run,
             on_progress const& progress);

/// Predictions judged, and the seconds that their logits took.
struct judged_states {
    std::vector<token_judgement> tokens; ///< [token - first]
    double seconds = 0;
};

/// Judges the predictions of tokens `first` on, from what the decoder returned for a window under
/// several ways to attend.
///
/// in     states    [way][token, hidden], at least one; the first is what others are compared with
///        on_rows   share of the tokens that are done, in [0, 1]; may be empty
/// out    [way]
[[nodiscard]] std::vector<judged_states>
judge_states(decoder const& model, std::span<token_id const> window, index_t first,
             std::span<std::vector<float> const> states, exec::openmp const& run,
             std::function<void(double share)> const& on_rows = {});

/// One method on all windows.
struct method_report {
    std::string method;
    std::string description;
    double perplexity = 0;
    double mean_kl_nats = 0;
    double p99_kl_nats = 0;
    double same_top_share = 0;
    double kept_share = 0; ///< mean over layers
    std::vector<double> layer_kept_share;
    bool is_timed = true;
    double attention_time_seconds = 0;
    double total_time_seconds = 0;
    double tokens_per_second = 0;
};

struct perplexity_report {
    std::string model;
    std::string text;
    index_t context_tokens = 0;
    index_t first_token = 0; ///< judged of each window
    index_t windows = 0;
    index_t windows_in_text = 0;
    index_t judged_tokens = 0;
    index_t threads = 0;
    std::vector<method_report> methods;
};

struct perplexity_options {
    index_t context = 2048; ///< tokens of a window, the first one included
    index_t first = 256;    ///< tokens before are context only
    index_t windows = 4;    ///< at most; 0: all of the text
    bool begins_with_bos = true;
};

/// Cuts a text into windows of `context` tokens, each after the model's BOS where it has one. What is
/// left at the end makes no window, unless it is all there is.
///
/// out    [window][token], all of the text whatever `options.windows`
/// error  a window longer than the model was made for, or no longer than `first`
[[nodiscard]] std::vector<std::vector<token_id>> windows_of(model_config const& config,
                                                            std::span<token_id const> text,
                                                            perplexity_options const& options);

/// Judges every method on the windows of a text.
///
/// error  as windows_of and judge_window
[[nodiscard]] perplexity_report perplexity(decoder const& model, std::span<token_id const> text,
                                           std::span<attention_method const> methods,
                                           perplexity_options const& options,
                                           exec::openmp const& run, on_progress const& progress);

/// The tables for a terminal.
[[nodiscard]] std::string to_text(perplexity_report const& report, bool with_layers);

} // namespace sofattn::lm

// clang-format off
BOOST_HANA_ADAPT_STRUCT(sofattn::lm::method_report,
    method, description, perplexity, mean_kl_nats, p99_kl_nats, same_top_share, kept_share,
    layer_kept_share, is_timed, attention_time_seconds, total_time_seconds, tokens_per_second);
BOOST_HANA_ADAPT_STRUCT(sofattn::lm::perplexity_report,
    model, text, context_tokens, first_token, windows, windows_in_text, judged_tokens, threads,
    methods);
// clang-format on
