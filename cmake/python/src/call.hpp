// SPDX-License-Identifier: MIT
// One call of attention: from Python's arguments to results.
#pragma once

#include "arguments.hpp"
#include "arrays.hpp"
#include "errors.hpp"
#include "team.hpp"
#include <sofattn/sofattn.h>

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace sofattn::python {

/// Results beside the output, where they are asked for.
struct attended {
    py::object output;
    py::object row_max = py::none();
    py::object row_sum = py::none();
    py::object selected = py::none();
    py::object selected_counts = py::none();
    py::object dropped_mass = py::none();
};

/// The description that the arguments make, and what they ask for beside it.
class call {
public:
    /// `where` precedes names in refusals, e.g. "sequences[3]."
    explicit call(arguments const& from, std::string where = "")
        : given_(from), where_(std::move(where)) {
        sofattn_attention_init(&a);
        from.take("mask", a.mask, masks);
        from.take("window", a.window);
        from.take("prefix", a.prefix);
        if (from.given("scale")) {
            from.take("scale", a.scale);
            if (a.scale == 0) { // the C interface's "not given"
                refuse("scale", "0", "positive, or None for 1 / sqrt(channels of q)");
            }
        }
        double cap = 0;
        from.take("softcap", cap);
        constexpr double beyond = 1e30; // the library refuses it, and no float overflows
        a.softcap = static_cast<float>(std::clamp(cap, -beyond, beyond));
        from.take("method", a.method, methods);
        from.take("products", a.products, all_products);
        from.take("dense_below", a.dense_below);
        a.finite = from.truth("check_finite", false) ? SOFATTN_REJECT : SOFATTN_UNCHECKED;

        bool const best = a.method == SOFATTN_BEST_KEYS;
        from.only_with(best, "best_keys", "count", "sinks", "recent", "heads_together");
        from.take("count", a.count);
        from.take("sinks", a.sinks);
        from.take("recent", a.recent);
        a.heads_together = from.truth("heads_together", true) ? 1 : 0;
        selects_ = from.truth("return_selected", false);
        if (selects_ && !best) {
            refuse("return_selected", "True", "False but with method=\"best_keys\"",
                   SOFATTN_UNSUPPORTED);
        }
        bool const prefill = is_coded_prefill(a.method);
        from.only_with(prefill, "budget\" or \"pages", "mass", "output_error");
        from.only_with(a.method == SOFATTN_BUDGET, "budget", "page_loss");
        if (!is_array("mass")) {
            from.take("mass", a.mass);
        }
        if (!is_array("output_error")) {
            from.take("output_error", a.output_error);
        }
        from.take("page_loss", a.page_loss);
        bool const listed = a.method == SOFATTN_LISTED;
        from.only_with(listed, "listed", "lists", "list_counts", "list_queries_each",
                       "list_keys_each");
        from.take("list_queries_each", a.list_queries_each);
        from.take("list_keys_each", a.list_keys_each);
        from.only_with(best || prefill, "best_keys\", \"budget\" or \"pages", "dense_below");

        from.take("tile_keys", a.tile_keys);
        from.take("tile_rows", a.tile_rows);
        from.take("part_keys", a.part_keys);

        from.take("out_dtype", a.output_type, float_types);
        sums_ = from.truth("return_sums", false);
        drops_ = from.truth("return_dropped", false);
        from.take("threads", threads_);
        constexpr std::int64_t most_threads = 1024; // each takes memory
        if (threads_ < 1 || threads_ > most_threads) {
            refuse("threads", std::to_string(threads_), "from 1 to 1024");
        }
    }

    sofattn_attention a{};

    void set_query(rows const& q) {
        a.heads = q.heads();
        a.queries = q.tokens();
        a.query = q.operand;
        query_.emplace(q);
    }
    void set_keys(rows const& k, rows const& v) {
        require_shape("v", v.array, {k.heads(), k.tokens(), v.dim()},
                      "[head of k, token of k, any number of channels]");
        require_dim(k.dim());
        a.kv_heads = k.heads();
        a.keys = k.tokens();
        a.qk_dim = k.dim();
        a.v_dim = v.dim();
        a.key = k.operand;
        a.value = v.operand;
        a.key_scales = k.scales;
        a.value_scales = v.scales;
        keys_.emplace(k);
        values_.emplace(v);
    }
    /// Of queries, which are set.
    void require_dim(std::int64_t qk_dim) const {
        require_shape(where_ + "q", query_->array, {query_->heads(), query_->tokens(), qk_dim},
                      "[head, token, channel of k]");
    }

    /// Checks, allocates results, and runs without the GIL. `a` describes queries and keys.
    [[nodiscard]] py::object run() {
        prepare();
        require_ok(carry_out());
        return result();
    }
    /// The same of several, at once.
    static void run(std::vector<std::unique_ptr<call>> const& all) {
        std::vector<sofattn_attention const*> attentions;
        std::int64_t threads = 1;
        for (std::unique_ptr<call> const& c : all) {
            c->prepare();
            attentions.push_back(&c->a);
            threads = c->threads_;
        }
        std::int64_t which = -1;
        sofattn_verdict const found = carry_out(attentions, threads, which);
        require_ok(found, which < 0 ? "" : all[static_cast<std::size_t>(which)]->where_);
    }
    /// After a run.
    [[nodiscard]] py::object result() {
        if (!sums_ && !selects_ && !drops_) {
            return result_.output;
        }
        return py::cast(std::move(result_));
    }

private:
    void prepare() {
        attended& result = result_;
        describe_heads();
        describe_output(result);
        describe_lists();
        require_well_formed();

        if (result.output.is_none()) {
            py::array made(numpy_type(a.output_type),
                           std::vector<py::ssize_t>{a.heads, a.queries, a.v_dim});
            a.output = made.mutable_data();
            result.output = std::move(made);
        }
        if (sums_) {
            py::array_t<float> max({a.heads, a.queries});
            py::array_t<float> sum({a.heads, a.queries});
            a.row_max = max.mutable_data();
            a.row_sum = sum.mutable_data();
            result.row_max = std::move(max);
            result.row_sum = std::move(sum);
        }
        if (selects_) {
            // Both within 2^31: checked.
            a.selected_slots = std::min(a.keys, std::max(a.count, a.sinks + a.recent));
            std::int64_t const selections = a.heads_together != 0 ? a.kv_heads : a.heads;
            py::array_t<std::int32_t> selected({selections, a.queries, a.selected_slots});
            py::array_t<std::int32_t> counts({selections, a.queries});
            a.selected = selected.mutable_data();
            a.selected_counts = counts.mutable_data();
            result.selected = std::move(selected);
            result.selected_counts = std::move(counts);
        }
        if (drops_) {
            py::array_t<float> dropped({a.heads, a.queries});
            a.dropped_mass = dropped.mutable_data();
            result.dropped_mass = std::move(dropped);
        }
        require_ok(sofattn_check(&a), where_); // with what was allocated
    }
    [[nodiscard]] bool is_array(char const* name) const {
        return py::isinstance<py::array>(given_.object(name));
    }
    /// A float of each head, where there is such an array.
    void take_of_heads(char const* name, float const*& into) {
        if (!given_.given(name)) {
            return;
        }
        py::array const numbers = read_numbers(name, given_.object(name), 1, 'f', "float32");
        require_shape(name, numbers, {a.heads}, "[head of q]");
        into = static_cast<float const*>(numbers.data());
        of_heads_.push_back(numbers);
    }
    void describe_heads() {
        take_of_heads("alibi_slopes", a.alibi_slopes);
        take_of_heads("sink_logits", a.sink_logits);
        if (is_array("mass")) {
            take_of_heads("mass", a.head_masses);
        }
        if (is_array("output_error")) {
            take_of_heads("output_error", a.head_output_errors);
        }
    }
    /// The library knows masks by number.
    void require_well_formed() const {
        sofattn_verdict const found = sofattn_check(&a);
        if (found.status != SOFATTN_OK && std::string_view(found.field) == "mask") {
            refuse(where_ + "mask", name_in(masks, a.mask), found.limit, found.status);
        }
        require_ok(found, where_);
    }
    /// What an array says of itself; uint16 is bfloat16 where it is so of other arrays of the call.
    [[nodiscard]] std::int32_t type_of_output(py::handle out) const {
        py::array const array = any_array("out", out);
        bool const bfloat16 = is_bfloat16(given_.object("dtype"), a.query.type == SOFATTN_BF16 ||
                                                                      a.key.type == SOFATTN_BF16);
        if (holds(array, 'f', 4)) {
            return SOFATTN_F32;
        }
        if (holds(array, 'f', 2)) {
            return SOFATTN_F16;
        }
        if (bfloat16 && holds(array, 'u', 2)) {
            return SOFATTN_BF16;
        }
        refuse("out.dtype", type_text(array),
               "float32, float16, or uint16 with out_dtype=\"bfloat16\", in native byte order",
               SOFATTN_UNSUPPORTED);
    }
    void describe_output(attended& result) {
        py::handle const out = given_.object("out");
        if (out.is_none()) {
            static float nowhere = 0; // for the check alone
            a.output = &nowhere;
            // Numbers beyond are refused by the check, but must not overflow here.
            constexpr std::int64_t most = std::int64_t{1} << 31;
            a.output_token_stride = std::min(a.v_dim, most) * numpy_type(a.output_type).itemsize();
            a.output_head_stride =
                std::min(a.queries, most) * std::min(a.output_token_stride, most);
            result.output = py::none();
            return;
        }
        if (!given_.given("out_dtype")) {
            a.output_type = type_of_output(out);
        }
        py::array array = read_output(out, a.output_type, a.heads, a.queries, a.v_dim);
        require_apart(array, query_->array, "q");
        if (keys_) {
            require_apart(array, keys_->array, "k");
            require_apart(array, values_->array, "v");
            for (rows const* const of : {&*keys_, &*values_}) {
                if (!of->scale_array.is_none()) {
                    require_apart(array, py::reinterpret_borrow<py::array>(of->scale_array),
                                  of == &*keys_ ? "k_scales" : "v_scales");
                }
            }
        }
        a.output = array.mutable_data();
        a.output_head_stride = array.strides(0);
        a.output_token_stride = array.strides(1);
        result.output = std::move(array);
    }
    /// The library takes the number of rows for granted, so it is checked here.
    void describe_lists() {
        if (a.method != SOFATTN_LISTED) {
            return;
        }
        if (!given_.given("lists")) {
            refuse("lists", "None", "an array of keys' numbers with method=\"listed\"",
                   SOFATTN_NULL_POINTER);
        }
        py::array const& lists = lists_.emplace(read_integers("lists", given_.object("lists"), 3));
        std::int64_t const each = std::max<std::int64_t>(a.list_queries_each, 1);
        std::int64_t const rows = a.queries / each + (a.queries % each != 0 ? 1 : 0);
        require_shape("lists", lists, {lists.shape(0), rows, lists.shape(2)},
                      "[list head, queries / list_queries_each rounded up, slot]");
        a.lists = static_cast<std::int32_t const*>(lists.data());
        a.list_heads = lists.shape(0);
        a.list_slots = lists.shape(2);
        if (given_.given("list_counts")) {
            py::array const& counts =
                counts_.emplace(read_integers("list_counts", given_.object("list_counts"), 2));
            require_shape("list_counts", counts, {a.list_heads, rows}, "[list head, row of lists]");
            a.list_counts = static_cast<std::int32_t const*>(counts.data());
        }
    }
    [[nodiscard]] sofattn_verdict carry_out() const {
        py::gil_scoped_release const others_may_run;
        std::size_t const bytes = sofattn_workspace_bytes(&a, threads_);
        std::unique_ptr<std::byte[]> const workspace(new (std::nothrow) std::byte[bytes]);
        if (workspace == nullptr) {
            return {SOFATTN_OUT_OF_MEMORY, "workspace bytes", static_cast<double>(bytes),
                    "no more than there is memory"};
        }
        team workers(threads_);
        return sofattn_run_parallel(&a, workspace.get(), bytes, threads_, team::run, &workers);
    }

    [[nodiscard]] static sofattn_verdict carry_out(std::vector<sofattn_attention const*> const& all,
                                                   std::int64_t threads, std::int64_t& which) {
        py::gil_scoped_release const others_may_run;
        auto const count = static_cast<std::int64_t>(all.size());
        std::size_t const bytes = sofattn_batch_workspace_bytes(all.data(), count, threads);
        std::unique_ptr<std::byte[]> const workspace(new (std::nothrow) std::byte[bytes]);
        if (workspace == nullptr) {
            return {SOFATTN_OUT_OF_MEMORY, "workspace bytes", static_cast<double>(bytes),
                    "no more than there is memory"};
        }
        team workers(threads);
        return sofattn_batch_run_parallel(all.data(), count, workspace.get(), bytes, threads,
                                          team::run, &workers, &which);
    }

    arguments const& given_;
    std::string where_;
    attended result_;
    std::int64_t threads_ = 1;
    bool sums_ = false;
    bool drops_ = false;
    bool selects_ = false;
    // Held while the library reads them.
    std::optional<rows> query_;
    std::optional<rows> keys_;
    std::optional<rows> values_;
    std::vector<py::array> of_heads_;
    std::optional<py::array> lists_;
    std::optional<py::array> counts_;
};

} // namespace sofattn::python
