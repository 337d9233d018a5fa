// What the tests of nets share: nets from prototxt text.
#pragma once

#include <string>
#include <string_view>

#include "base/text.h"
#include "caffe/layers/layer_fixture.h"
#include "engines/caffe/net/net.h"

namespace poseidon::caffe::testing {

inline proto::Message net_message(std::string_view text) {
  return proto::parse_text(text, "NetParameter", "net.prototxt");
}

inline Net make_net(std::string_view text, NetOptions options = {.dtype = at::kDouble}) {
  return Net(net_message(text), standard_layers(), std::move(options));
}

inline std::string net_error(std::string_view text, NetOptions options = {.dtype = at::kDouble}) {
  return error_of([&] { make_net(text, options); });
}

}  // namespace poseidon::caffe::testing
