// SPDX-License-Identifier: MIT
// A stage where the result of the one before it is something else.
// expect: error: .*this stage cannot take the result of the stage before it
#include <sofattn/attention/pipeline.hpp>

struct work {};
struct scores {};
struct predict {
    scores operator()(int&, work const&) const { return {}; }
};
struct rank {
    int operator()(int&, scores const&) const { return 1; }
};

int run() {
    int x = 0;
#ifndef SOFATTN_OK
    return sofattn::pipeline(rank{}, predict{})(x, work{});
#else
    return sofattn::pipeline(predict{}, rank{})(x, work{});
#endif
}
