// Older forms of nets and solvers turned into the present one, as Caffe 1.0 does with every file that it reads.
// Internal to proto/.
//
// What there was, in the order in which it is upgraded:
// - `layers { layer { name: "conv1" type: "conv" } bottom: "data" top: "conv1" }`, with padding as a layer of its own
//   (2013; "V0");
// - scale, mean_file, crop_size and mirror in the settings of data layers instead of transform_param (2014);
// - `layers { type: CONVOLUTION blobs_lr: 1 weight_decay: 1 }` (2014; "V1");
// - inputs of a net without a layer: `input: "data" input_dim: 1 ...`;
// - BatchNorm layers with three `param`, which solvers were told not to train by their lr_mult: 0;
// - `solver_type: ADAM` of solvers.
//
// Each function changes the message in place, takes the places of what it moves along, and returns what was old in
// words
// ("layers of the form `layers { type: CONVOLUTION }`"). They throw ConfigError for what cannot be said in the present
// form, and log a warning where Caffe leaves a setting out with one.
#pragma once

#include <string>
#include <vector>

#include "engines/caffe/proto/places.h"

namespace caffe {
class NetParameter;
class SolverParameter;
}  // namespace caffe

namespace poseidon::caffe::proto {

// `file` is for errors.
std::vector<std::string> upgrade_net(::caffe::NetParameter& net, Places& places, const std::string& file);
// The first three alone: all that matters for the arrays of a trained model.
std::vector<std::string> upgrade_layers(::caffe::NetParameter& net, Places& places, const std::string& file);
// The nets inside a solver, too.
std::vector<std::string> upgrade_solver(::caffe::SolverParameter& solver, Places& places, const std::string& file);

}  // namespace poseidon::caffe::proto
