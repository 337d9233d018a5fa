// Trained arrays between nets and model files (.caffemodel), by the names of the layers.
#pragma once

#include <span>
#include <string>

#include "engines/caffe/net/net.h"
#include "engines/caffe/proto/model_file.h"

namespace poseidon::caffe {

// Every layer that has arrays, with its own copy of those it shares, as Caffe writes them. `diffs` are what stands
// beside them with snapshot_diff, one for each of Net::arrays() (undefined: zeros), or none at all.
proto::TrainedNet trained_net(const Net& net, std::span<const at::Tensor> diffs = {});

// Throws ConfigError where a layer that is in both has another number of arrays, or of other shapes, in one than in the
// other. `remedy` ends the sentence.
void check_trained(const proto::TrainedNet& trained, const std::string& file_name, const Net& net,
                   std::string_view remedy);

// Copies what `trained` has into the layers of the same names. Layers of the model that the net does not have are
// passed over, layers of the net that the model does not have stay as they are; both are logged. Throws as
// check_trained does, before anything is changed. Values are rounded to the net's type.
void copy_trained(const proto::TrainedNet& trained, const std::string& file_name, Net& net);

// One array as files have it, and back. `restore` throws std::logic_error for another number of elements.
proto::Blob to_blob(const at::Tensor& tensor);
void restore(const proto::Blob& blob, const at::Tensor& into);

}  // namespace poseidon::caffe
