#include "engines/caffe/net/net_arrays.h"

#include "base/text.h"

namespace poseidon::caffe {
namespace {

// Layers that share an array must agree on a factor, or leave it to the other.
void reconcile(const Layer& layer, const Parameter& user, std::string_view factor, const std::optional<double>& stated,
               const std::string& array, std::optional<double>& value) {
  if (!stated) return;
  if (value && *value != *stated) {
    layer.fail_at(user.position, base::concat("states ", factor, " ", *stated, " for the array \"", user.share_name,
                                              "\", which is shared with ", array, ", where it is ", *value));
  }
  value = stated;
}

}  // namespace

void NetArrays::bind(Layer& layer, std::size_t index, const Layer* twin) {
  by_layer_.resize(index + 1);
  for (std::size_t i = 0; i < layer.parameters().size(); ++i) {
    const std::string& name = layer.parameters()[i].share_name;
    const auto known = name.empty() ? shared_.end() : shared_.find(name);
    const std::size_t array =
        known == shared_.end() ? create(layer, index, i, twin) : share(layer, index, i, known->second);
    if (!name.empty()) shared_.emplace(name, array);
    by_layer_[index].push_back(array);
  }
}

std::size_t NetArrays::share(Layer& layer, std::size_t index, std::size_t parameter, std::size_t array) {
  Parameter& user = layer.parameters()[parameter];
  NetArray& owned = arrays_[array];
  const bool fits =
      user.share_any_shape ? elements_of(user.shape) == elements_of(owned.shape) : user.shape == owned.shape;
  if (!fits) {
    layer.fail_at(
        user.position,
        base::concat("shares the array \"", user.share_name, "\" as ", base::readable_shape(user.shape),
                     ", but layer \"", owners_[array]->name(), "\" has it as ", base::readable_shape(owned.shape),
                     user.share_any_shape ? ", with another number of elements"
                                          : "; share_mode: PERMISSIVE asks only for as many elements"));
  }
  reconcile(layer, user, "lr_mult", user.lr_mult, owned.name, owned.lr_mult);
  reconcile(layer, user, "decay_mult", user.decay_mult, owned.name, owned.decay_mult);
  user.value = owned.value;
  owned.users.push_back(index);
  return array;
}

std::size_t NetArrays::create(Layer& layer, std::size_t index, std::size_t parameter, const Layer* twin) {
  Parameter& own = layer.parameters()[parameter];
  const bool borrowed = twin != nullptr && parameter < twin->parameters().size();
  if (borrowed) {
    const Parameter& theirs = twin->parameters()[parameter];
    if (theirs.shape != own.shape) {
      layer.fail(base::concat("has ", own.name, " as ", base::readable_shape(own.shape),
                              ", but the training net has it as ", base::readable_shape(theirs.shape)));
    }
    own.value = theirs.value;
  } else {
    layer.fill(own);
  }
  arrays_.push_back({.name = own.name,
                     .value = own.value,
                     .shape = own.shape,
                     .lr_mult = own.lr_mult,
                     .decay_mult = own.decay_mult,
                     .owner = index,
                     .parameter = parameter,
                     .users = {index},
                     .is_statistic = own.is_statistic,
                     .borrowed = borrowed});
  owners_.push_back(&layer);
  return arrays_.size() - 1;
}

void NetArrays::finish() {
  for (NetArray& array : arrays_) {
    if (!array.borrowed) array.value.set_requires_grad(array.trained());
  }
}

}  // namespace poseidon::caffe
