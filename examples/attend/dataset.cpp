// SPDX-License-Identifier: MIT
#include "attend/dataset.hpp"

#include <sofattn/core/error.hpp>
#include <sofattn/core/finite.hpp>
#include <sofattn/io/npy.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <map>
#include <string_view>
#include <system_error>

namespace sofattn::attend {

namespace {

namespace fs = std::filesystem;
using detail::array_file;
using detail::layer_files;

enum part : std::size_t { q_part, k_part, v_part, x_part, wk_part, wv_part, bk_part, bv_part };
constexpr std::array<std::string_view, 8> part_names{"q", "k", "v", "x", "wk", "wv", "bk", "bv"};

/// A manifest is a few kilobytes; what is far beyond is something else.
constexpr std::uintmax_t max_manifest_bytes = 16u << 20;

// --- one array -----------------------------------------------------------------------------------

std::string about(array_file const& file, std::string_view what) {
    return io::shown(file.path) + ": " + std::string(what);
}

std::string as_in(array_file const& other) { return ", as in " + other.path.filename().string(); }

void require_equal(array_file const& file, std::string_view what, index_t value, index_t expected,
                   std::string const& why) {
    if (value != expected) {
        throw error(about(file, what), std::to_string(value), std::to_string(expected) + why);
    }
}

void require_rank(array_file const& file, std::size_t rank, std::string_view axes) {
    if (file.shape.size() != rank) {
        throw error(about(file, "rank"), std::to_string(file.shape.size()),
                    std::to_string(rank) + ", " + std::string(axes));
    }
}

void require_shape(array_file const& file, std::vector<index_t> const& expected,
                   std::string const& why) {
    if (file.shape != expected) {
        throw error(about(file, "shape"), io::shape_text(file.shape),
                    io::shape_text(expected) + why);
    }
}

/// Reads the header of the file.
array_file described(fs::path const& path) {
    array_file file;
    file.path = path;
    std::string const dtype = about(file, "dtype");
    std::string const floats = "'<f4' or '<f2'";
    try {
        io::npy_header const header = io::read_npy_header(path);
        if (header.dtype == io::npy_dtype::int32) {
            throw error(dtype, "'<i4'", floats);
        }
        file.shape = header.shape;
    } catch (error const& e) {
        if (e.subject() != dtype) {
            throw;
        }
        throw error(dtype, e.value(), floats); // .npy files in general may hold integers
    }
    return file;
}

// --- what fits together --------------------------------------------------------------------------

/// q, k or v: [heads, tokens, dim].
void require_heads_tokens_dim(array_file const& file) {
    require_rank(file, 3, "[heads, tokens, dim]");
    auto const in_range = [&](std::size_t a, std::string_view what, index_t most) {
        if (file.shape[a] < 1 || file.shape[a] > most) {
            throw error(about(file, what), std::to_string(file.shape[a]),
                        "from 1 to " + std::to_string(most));
        }
    };
    in_range(0, "number of heads", std::numeric_limits<int>::max());
    in_range(1, "number of tokens", std::numeric_limits<key_id>::max());
    in_range(2, "head dimension", max_head_dim);
}

/// Fills the extents of `info`, and refuses what makes no attention.
void describe_attention(layer_info& info, layer_files const& files) {
    auto const& [q, k, v, x, wk, wv, bk, bv] = files;
    for (array_file const* file : {&q, &k, &v}) {
        require_heads_tokens_dim(*file);
    }
    info.heads = q.shape[0];
    info.queries = q.shape[1];
    info.dim = q.shape[2];
    info.kv_heads = k.shape[0];
    info.keys = k.shape[1];
    info.value_dim = v.shape[2];
    require_equal(k, "head dimension", k.shape[2], info.dim, as_in(q));
    require_equal(v, "number of heads", v.shape[0], info.kv_heads, as_in(k));
    require_equal(v, "number of tokens", v.shape[1], info.keys, as_in(k));
    if (info.heads % info.kv_heads != 0) {
        throw error(about(q, "number of heads"), std::to_string(info.heads),
                    "a multiple of the " + std::to_string(info.kv_heads) + " heads of " +
                        k.path.filename().string());
    }
    if (info.causal && info.queries > info.keys) { // the first rows would see no key
        throw error(about(q, "number of tokens"), std::to_string(info.queries),
                    "at most " + std::to_string(info.keys) + as_in(k) + ", if causal");
    }
    index_t const group = info.heads / info.kv_heads;
    for (index_t h = 0; h < info.heads; ++h) {
        info.kv_head_of_q_head.push_back(static_cast<int>(h / group));
        info.q_heads.push_back(static_cast<int>(h));
    }
}

/// Which way round a file holds its weights. The manifest's word goes first, as a square matrix
/// does not tell; the extents have to agree with it.
void orient(array_file& file, index_t channels, index_t features) {
    constexpr std::string_view both = "\"channel,...\" ([in, out]) or \"...,channel\" ([out, in])";
    require_rank(file, 2, "[in, out] or [out, in]");
    if (!file.axes.empty()) {
        bool const first = file.axes.starts_with("channel,");
        if (first == file.axes.ends_with(",channel")) {
            throw error(file.entry + ".axes", io::quoted(file.axes), std::string(both));
        }
        file.channel_first = first;
    } else if (channels == features) {
        throw error(file.entry + ".axes", "missing",
                    std::string(both) + ", as a square matrix does not tell");
    } else {
        file.channel_first = file.shape[1] != channels;
    }
    require_shape(file,
                  file.channel_first ? std::vector{channels, features}
                                     : std::vector{features, channels},
                  " for " + std::to_string(channels) + " channels and " + std::to_string(features) +
                      " = KV heads * head dimension outputs");
}

/// Fills info.channels, and refuses projections that do not make this K and V.
void describe_projections(layer_info& info, layer_files& files, std::string const& manifest) {
    auto const listed = [&](part p) { return !files[p].path.empty(); };
    auto const first = std::find_if(files.begin() + x_part, files.end(),
                                    [](array_file const& file) { return !file.path.empty(); });
    if (first == files.end()) {
        return;
    }
    for (part p : {x_part, wk_part, wv_part}) {
        if (!listed(p)) {
            throw error(manifest + ": layer " + std::to_string(info.layer) + ": " +
                            std::string(part_names[p]),
                        "missing", "listed, as " + first->path.filename().string() + " is");
        }
    }
    array_file const& x = files[x_part];
    require_rank(x, 2, "[tokens, channels]");
    require_equal(x, "number of tokens", x.shape[0], info.keys, as_in(files[k_part]));
    if (x.shape[1] < 1) {
        throw error(about(x, "number of channels"), "0", "at least 1");
    }
    info.channels = x.shape[1];
    for (auto const& [weights, bias, dim] :
         {std::tuple(wk_part, bk_part, info.dim), std::tuple(wv_part, bv_part, info.value_dim)}) {
        index_t const features = info.kv_heads * dim;
        orient(files[weights], info.channels, features);
        if (listed(bias)) {
            require_shape(files[bias], {features}, " = KV heads * head dimension");
        }
    }
}

// --- manifests -----------------------------------------------------------------------------------

/// A value of a manifest that knows its place: "FOLDER/manifest.json: files[3].shape".
class node {
public:
    using json = nlohmann::json;

    node(json const& value, std::string file, std::string field = {})
        : value_(&value), file_(std::move(file)), field_(std::move(field)) {}

    [[nodiscard]] std::string place() const {
        return file_ + ": " + (field_.empty() ? "document" : field_);
    }
    [[noreturn]] void fail(std::string const& limit) const {
        std::string found = value_->is_array() ? "an array" : "an object";
        if (!value_->is_structured()) {
            found = value_->dump(-1, ' ', true, json::error_handler_t::replace);
            constexpr std::size_t most = 60;
            if (found.size() > most) {
                found = found.substr(0, most) + "...";
            }
        }
        throw error(place(), found, limit);
    }

    [[nodiscard]] std::optional<node> find(std::string const& key) const {
        if (!value_->is_object()) {
            fail("an object");
        }
        auto const found = value_->find(key);
        if (found == value_->end()) {
            return std::nullopt;
        }
        return node(*found, file_, field_.empty() ? key : field_ + "." + key);
    }
    [[nodiscard]] node at(std::string const& key, std::string const& limit) const {
        if (auto const found = find(key)) {
            return *found;
        }
        throw error(file_ + ": " + (field_.empty() ? key : field_ + "." + key), "missing", limit);
    }
    [[nodiscard]] std::vector<node> elements() const {
        if (!value_->is_array()) {
            fail("an array");
        }
        std::vector<node> result;
        for (std::size_t i = 0; i < value_->size(); ++i) {
            result.emplace_back((*value_)[i], file_, field_ + "[" + std::to_string(i) + "]");
        }
        return result;
    }
    [[nodiscard]] bool boolean() const {
        if (!value_->is_boolean()) {
            fail("true or false");
        }
        return value_->get<bool>();
    }
    [[nodiscard]] std::string text() const {
        if (!value_->is_string()) {
            fail("a string");
        }
        return value_->get<std::string>();
    }
    [[nodiscard]] double positive() const {
        if (!value_->is_number() || !std::isfinite(value_->get<double>()) ||
            !(value_->get<double>() > 0)) {
            fail("a positive number");
        }
        return value_->get<double>();
    }
    /// From 0 to `most`.
    template <class Integer>
    [[nodiscard]] Integer integer(Integer most = std::numeric_limits<Integer>::max()) const {
        if (!value_->is_number_unsigned() ||
            value_->get<std::uint64_t>() > static_cast<std::uint64_t>(most)) {
            fail("an integer from 0 to " + std::to_string(most));
        }
        return static_cast<Integer>(value_->get<std::uint64_t>());
    }
    /// Of integers.
    template <class Integer>
    [[nodiscard]] std::vector<Integer> integers() const {
        std::vector<Integer> result;
        for (node const& element : elements()) {
            result.push_back(element.integer<Integer>());
        }
        return result;
    }

private:
    json const* value_;
    std::string file_;
    std::string field_; ///< empty: the document
};

/// The parser's own message, without its code and position.
std::string complaint(std::string_view text) {
    // "[json.exception.NAME.NUMBER] parse error at line 1, column 2: syntax error ..."
    auto const drop_through = [&](std::string_view mark) {
        if (std::size_t const at = text.find(mark); at != std::string_view::npos) {
            text.remove_prefix(at + mark.size());
        }
    };
    drop_through("] ");
    if (text.starts_with("parse error")) {
        drop_through(": ");
    }
    std::string clean(text.substr(0, 200));
    std::replace_if(
        clean.begin(), clean.end(), [](char c) { return c < 0x20 || c >= 0x7f; }, '?');
    return clean;
}

nlohmann::json parsed(fs::path const& path) {
    io::input_file file(path);
    if (file.size > max_manifest_bytes) {
        throw error(file.name + ": size", std::to_string(file.size) + " bytes",
                    "at most " + std::to_string(max_manifest_bytes) + " bytes");
    }
    std::string text(static_cast<std::size_t>(file.size), '\0');
    file.read(text.data(), text.size());
    try {
        return nlohmann::json::parse(text);
    } catch (nlohmann::json::parse_error const& e) {
        std::size_t const at = std::min(e.byte > 0 ? e.byte - 1 : 0, text.size());
        std::string_view const before = std::string_view(text).substr(0, at);
        auto const line = std::count(before.begin(), before.end(), '\n') + 1;
        std::size_t const line_start = before.rfind('\n') + 1; // npos + 1 == 0
        throw error(file.name + ": line " + std::to_string(line) + ", column " +
                        std::to_string(at - line_start + 1),
                    at < text.size() ? io::quoted(std::string_view(text).substr(at, 20))
                                     : "the end of the file",
                    "valid JSON (" + complaint(e.what()) + ")");
    } catch (nlohmann::json::exception const& e) { // e.g. a number beyond double
        throw error(file.name + ": content", "not valid (" + complaint(e.what()) + ")",
                    "valid JSON");
    }
}

/// "NAME_wk.npy" and "wk.npy" are wk.
std::optional<part> part_of(fs::path const& file) {
    std::string const stem = file.stem().string();
    std::string_view const end = std::string_view(stem).substr(stem.rfind('_') + 1);
    auto const found = std::find(part_names.begin(), part_names.end(), end);
    if (found == part_names.end() || file.extension() != ".npy") {
        return std::nullopt;
    }
    return static_cast<part>(found - part_names.begin());
}

std::optional<rope_parameters> rope_of(node const& root) {
    auto const layout = root.find("rope_layout");
    if (!layout && !root.find("rope_theta")) {
        return std::nullopt;
    }
    rope_parameters rope;
    std::string const text = root.at("rope_layout", "given, as rope_theta is").text();
    if (text.starts_with("interleaved")) {
        rope.layout = dlzs::rope_layout::interleaved;
    } else if (text.starts_with("halves")) {
        rope.layout = dlzs::rope_layout::halves;
    } else {
        layout->fail("\"interleaved...\" or \"halves...\"");
    }
    node const theta = root.at("rope_theta", "given, as rope_layout is");
    rope.theta = theta.positive();
    if (!(rope.theta > 1)) {
        theta.fail("greater than 1");
    }
    return rope;
}

/// A layer while its files are collected.
struct collected {
    layer_files files;
    std::optional<node> q_heads;
    std::optional<node> kv_head_of_q_head;
};

class manifest_reader {
public:
    explicit manifest_reader(fs::path path)
        : path_(std::move(path)), document_(parsed(path_)), root_(document_, io::shown(path_)) {}
    manifest_reader(manifest_reader const&) = delete; // root_ points into document_
    manifest_reader& operator=(manifest_reader const&) = delete;

    /// Appends the layers of the manifest.
    void read(std::vector<layer_info>& infos, std::vector<layer_files>& files) const {
        layer_info common;
        common.model = root_.at("model", "a string").text();
        common.causal = root_.at("causal", "true or false").boolean();
        if (auto const scale = root_.find("softmax_scale")) {
            common.scale = scale->positive();
        }
        common.rope = rope_of(root_);
        auto layers = collect();
        for (auto& [number, layer] : layers) {
            layer_info info = common;
            info.layer = number;
            for (part p : {q_part, k_part, v_part}) {
                if (layer.files[p].path.empty()) {
                    throw error(io::shown(path_) + ": layer " + std::to_string(number) + ": " +
                                    std::string(part_names[p]),
                                "missing", "listed");
                }
            }
            describe_attention(info, layer.files);
            describe_projections(info, layer.files, io::shown(path_));
            check_model(info);
            check_heads(info, layer);
            infos.push_back(std::move(info));
            files.push_back(std::move(layer.files));
        }
    }

private:
    [[nodiscard]] std::map<int, collected> collect() const {
        std::map<int, collected> layers;
        for (node const& entry : root_.at("files", "an array").elements()) {
            node const name = entry.at("file", "the name of a file in the folder");
            fs::path const relative = name.text();
            auto const number = entry.find("layer");
            auto const p = part_of(relative);
            if (!number || !p) {
                continue;
            }
            if (relative.is_absolute() ||
                std::find(relative.begin(), relative.end(), "..") != relative.end()) {
                name.fail("a relative path inside the folder");
            }
            collected& layer = layers[number->integer<int>()];
            array_file& file = layer.files[*p];
            if (!file.path.empty()) {
                name.fail("the only " + std::string(part_names[*p]) + " of its layer, which " +
                          file.path.filename().string() + " is already");
            }
            file = described(path_.parent_path() / relative);
            file.entry = entry.place();
            require_shape(file, entry.at("shape", "an array").integers<index_t>(),
                          ", as " + path_.filename().string() + " lists");
            if (auto const axes = entry.find("axes")) {
                file.axes = axes->text();
                check_axes(*p, *axes);
            }
            if (*p == q_part) {
                layer.q_heads = entry.find("q_heads");
                layer.kv_head_of_q_head = entry.find("kv_head_of_q_head");
            }
        }
        if (layers.empty()) {
            throw error(io::shown(path_) + ": files", "without any layer", "of at least one layer");
        }
        return layers;
    }

    /// The order of extents that is assumed must not be denied.
    static void check_axes(part p, node const& axes) {
        std::string const text = axes.text();
        if (p <= v_part && !text.ends_with("head,token,dim")) {
            axes.fail("\"...head,token,dim\"");
        }
        if (p == x_part && text != "token,channel") {
            axes.fail("\"token,channel\"");
        }
    }

    /// What the manifest says of the model and the arrays must show.
    void check_model(layer_info const& info) const {
        if (auto const dim = root_.find("head_dim"); dim && dim->integer<index_t>() != info.dim) {
            dim->fail(std::to_string(info.dim) + ", as the arrays of layer " +
                      std::to_string(info.layer) + " have");
        }
        if (info.rope && info.dim % 2 != 0) {
            root_.find("rope_layout")
                ->fail("left out, or the head dimension even; it is " + std::to_string(info.dim));
        }
        // The first recorded token would not have position 0, and K would come out rotated wrongly.
        if (auto const skip = root_.find("skip_tokens");
            skip && info.rope && info.has_projections() && skip->integer<index_t>() != 0) {
            skip->fail("0, as RoPE positions start at the first token");
        }
    }

    static void check_heads(layer_info& info, collected const& layer) {
        auto const of_length = [&](node const& list) {
            auto values = list.integers<int>();
            if (static_cast<index_t>(values.size()) != info.heads) {
                throw error(list.place() + ": length", std::to_string(values.size()),
                            std::to_string(info.heads) + ", the heads" +
                                as_in(layer.files[q_part]).substr(1));
            }
            return values;
        };
        if (layer.q_heads) {
            info.q_heads = of_length(*layer.q_heads);
        }
        if (layer.kv_head_of_q_head) {
            auto const given = of_length(*layer.kv_head_of_q_head);
            auto const [wrong, right] =
                std::mismatch(given.begin(), given.end(), info.kv_head_of_q_head.begin());
            if (wrong != given.end()) {
                throw error(layer.kv_head_of_q_head->place() + "[" +
                                std::to_string(wrong - given.begin()) + "]",
                            std::to_string(*wrong),
                            std::to_string(*right) +
                                ": neighbours share a KV head, h / (heads / KV heads)");
            }
        }
    }

    fs::path path_;
    nlohmann::json document_;
    node root_;
};

// --- reading numbers -----------------------------------------------------------------------------

/// The numbers of a file that still is what it was.
template <class... Axes>
tensor<float, Axes...> numbers(array_file const& file) {
    io::npy_array const array = io::read_npy(file.path);
    if (array.shape() != file.shape) {
        throw error(about(file, "shape"), io::shape_text(array.shape()),
                    io::shape_text(file.shape) + ", as it was when the run began");
    }
    auto result = array.to_tensor<Axes...>();
    require_finite(io::shown(file.path), result.cview());
    return result;
}

template <class Dim>
tensor<float, axis::kv_head, Dim> bias_numbers(array_file const& file, index_t kv_heads) {
    if (file.path.empty()) {
        return tensor<float, axis::kv_head, Dim>({0, 0});
    }
    auto const flat = numbers<Dim>(file);
    index_t const dims = flat.view().size() / kv_heads;
    tensor<float, axis::kv_head, Dim> result({kv_heads, dims});
    for (index_t i = 0; i < kv_heads * dims; ++i) {
        result(i / dims, i % dims) = flat(i);
    }
    return result;
}

template <class Dim>
projection_weights<Dim> weight_numbers(array_file const& file, index_t kv_heads) {
    return {numbers<detail::stored_row, detail::stored_column>(file), file.channel_first, kv_heads};
}

} // namespace

// --- dataset -------------------------------------------------------------------------------------

dataset dataset::of_arrays(fs::path const& q, fs::path const& k, fs::path const& v, bool causal,
                           double scale) {
    if (!std::isfinite(scale) || scale < 0) {
        throw error("softmax scale", std::to_string(scale), "positive and finite");
    }
    layer_info info;
    info.model = q.filename().string();
    info.causal = causal;
    info.scale = scale;
    layer_files files;
    files[q_part] = described(q);
    files[k_part] = described(k);
    files[v_part] = described(v);
    describe_attention(info, files);
    dataset result;
    result.infos_.push_back(std::move(info));
    result.files_.push_back(std::move(files));
    return result;
}

dataset dataset::of_folder(fs::path const& folder) {
    std::error_code code;
    auto const status = fs::status(folder, code);
    if (!fs::is_directory(status)) {
        throw error(io::shown(folder), fs::exists(status) ? "not a folder" : "missing",
                    "a folder with manifest*.json");
    }
    std::vector<fs::path> manifests;
    for (fs::directory_iterator at(folder, code), end; !code && at != end; at.increment(code)) {
        std::string const name = at->path().filename().string();
        if (name.starts_with("manifest") && name.ends_with(".json")) {
            manifests.push_back(at->path());
        }
    }
    if (code) {
        throw error(io::shown(folder), "unreadable (" + code.message() + ")", "a readable folder");
    }
    if (manifests.empty()) {
        throw error(io::shown(folder) + ": manifest*.json", "missing", "at least one file");
    }
    std::sort(manifests.begin(), manifests.end());
    dataset result;
    for (fs::path const& manifest : manifests) {
        manifest_reader(manifest).read(result.infos_, result.files_);
    }
    return result;
}

layer dataset::load(std::size_t index, parts wanted) const {
    if (index >= infos_.size()) {
        throw error("dataset: layer index", std::to_string(index),
                    "less than " + std::to_string(infos_.size()));
    }
    layer result;
    result.info = infos_[index];
    layer_info const& info = result.info;
    layer_files const& files = files_[index];
    result.q = numbers<axis::head, axis::query, axis::dim>(files[q_part]);
    result.k = numbers<axis::kv_head, axis::key, axis::dim>(files[k_part]);
    result.v = numbers<axis::kv_head, axis::key, axis::value_dim>(files[v_part]);
    if (wanted == parts::with_projections && info.has_projections()) {
        projections& p = result.projected.emplace();
        p.x = numbers<axis::key, axis::channel>(files[x_part]);
        p.wk = weight_numbers<axis::dim>(files[wk_part], info.kv_heads);
        p.wv = weight_numbers<axis::value_dim>(files[wv_part], info.kv_heads);
        p.bk = bias_numbers<axis::dim>(files[bk_part], info.kv_heads);
        p.bv = bias_numbers<axis::value_dim>(files[bv_part], info.kv_heads);
        if (info.rope) {
            p.rotation.emplace(info.dim, info.rope->layout, info.rope->theta);
        }
    }
    return result;
}

} // namespace sofattn::attend
