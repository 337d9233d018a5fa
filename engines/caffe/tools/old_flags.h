// Caffe's tools took their flags with one dash or two and with underscores (gflags): `-resize_height 28`,
// `--gray=true`,
// `-nogray`. Ours are `--resize-height 28`, `--gray`. People keep their scripts, so both are understood.
#pragma once

#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace poseidon::caffe {

// The arguments in today's spelling: two dashes before a name of two letters or more, dashes for underscores within it,
// and
// `--gray=false` for `--nogray` where `gray` is among `switches` (flags without a value). Values, what stands after
// `--`, and everything else stay as they are.
std::vector<std::string> modern_spelling(std::span<const std::string> arguments,
                                         std::span<const std::string_view> switches = {});

}  // namespace poseidon::caffe
