// SPDX-License-Identifier: MIT
// One run at a time on a state file.
#pragma once

#include <filesystem>

namespace sofattn::dse {

/// Held while a run may write a state file, or what lies beside it. Advisory, on a file of its own
/// (".lock" after the state's name), since a state file is replaced by every write. The kernel lets go
/// of it when the process ends, however it ends; worker processes do not have it.
class state_lock {
public:
    /// error  another process has it (file, which process), or the folder takes no file
    explicit state_lock(std::filesystem::path const& state);
    state_lock(state_lock const&) = delete;
    state_lock& operator=(state_lock const&) = delete;
    ~state_lock();

private:
    std::filesystem::path file_;
    int descriptor_ = -1;
};

} // namespace sofattn::dse
