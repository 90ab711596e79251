// SPDX-License-Identifier: MIT
#include "attend/study.hpp"

#include "support/temporary_folder.hpp"
#include <sofattn/core/error.hpp>

#include <doctest/doctest.h>

#include <string>

using namespace sofattn;
using namespace sofattn::attend;

namespace {

std::vector<study_row> rows() {
    return {{"ranking", "TinyLlama-1.1B", "5,11", "dlzs8", 0.10, {0.1, 0.864, 0.957, 0.067}},
            {"ranking", "TinyLlama-1.1B", "5,11", "int8", 0.10, {0.1, 0.98, 0.96, 0.06}}};
}

study_check check_with(std::string const& figures) {
    test::temporary_folder const folder;
    auto const path = folder.path() / "expected.json";
    test::write_bytes(path, R"({"tolerance_recall": 0.01, "tolerance_mass": 0.005,
                                "tolerance_error": 0.01, "rows": [)" +
                                figures + "]}");
    return check_study(rows(), path);
}

constexpr char const* row = R"({"study": "ranking", "model": "TinyLlama", "layers": "5,11",
                                "ranking": "dlzs8", "keep_ratio": 0.1, )";

} // namespace

TEST_CASE("attend.study: figures within the tolerance agree") {
    auto const check = check_with(row + std::string(R"("recall": 0.87, "mass": 0.954})"));
    CHECK(check.compared == 2);
    CHECK(check.deviations.empty());
}

TEST_CASE("attend.study: a figure outside is named with value and target") {
    auto const check = check_with(row + std::string(R"("recall": 0.88, "error": 0.05})"));
    REQUIRE(check.deviations.size() == 2);
    CHECK(check.deviations[0] == "TinyLlama-1.1B layers 5,11 dlzs8 at 0.1: recall is 0.8640, must "
                                 "be 0.8800 +- 0.01");
}

TEST_CASE("attend.study: a file that expects nothing of this study is refused, not passed") {
    CHECK_THROWS_AS(check_with(R"({"study": "keys", "model": "TinyLlama", "layers": "5",
                                   "ranking": "dlzs8", "keep_ratio": 0.1, "recall": 1})"),
                    error);
    CHECK_THROWS_AS((void)check_study(rows(), "no/such/file.json"), error);
}

TEST_CASE("attend.study: the table has a row per figure") {
    auto const text = to_text(rows());
    CHECK(text.find("TinyLlama-1.1B, layers 5,11\n") != std::string::npos);
    CHECK(text.find("dlzs8") != std::string::npos);
    CHECK(text.find("0.864") != std::string::npos);
}
