// A net that is run layer by layer, with all blobs kept: what pycaffe's Net is.
//
// Training runs a net as one graph and lets go of what nobody needs any more. A script wants to look at every blob, to
// write into it, to begin in the middle and to see the gradients of all, so here the graph is cut in front of each
// layer: a forward pass copies what a layer makes into its tops' blobs, and a backward pass takes a layer's gradients
// from its tops' `diff` and leaves those of its bottoms in theirs. Layers that work in place share one blob with the
// layer before, as in Caffe; since each layer's own graph keeps what it computed with, gradients are right even so.
//
// Gradients are computed of what a trained array stands before, as in Caffe, and of all where the net says
// force_backward or has no loss.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "engines/caffe/net/net.h"
#include "engines/caffe/python/blob.h"

namespace poseidon::caffe::python {

class KeptNet {
 public:
  // Borrows the net.
  explicit KeptNet(Net& net);

  Net& net() { return net_; }
  const Net& net() const { return net_; }
  // By name, in the order of their making.
  const std::vector<std::string>& names() const { return names_; }
  const std::shared_ptr<Blob>& blob(const std::string& name) const { return blobs_.at(name); }
  // Of each layer, its arrays in their order. Layers that share an array share the blob.
  const std::vector<std::shared_ptr<Blob>>& arrays_of(std::size_t step) const { return arrays_of_[step]; }
  const std::vector<std::shared_ptr<Blob>>& arrays() const { return arrays_; }

  // Gives all blobs the shapes that follow from the inputs'.
  void reshape();
  // Layers [first, last], and the weighted sum of their losses. Blobs of Input layers are taken as they are.
  double forward(const Pass& pass, std::size_t first, std::size_t last);
  // As the pass after the last one: random draws are new, and so are records where a layer in between reads any.
  double forward_next(std::size_t first, std::size_t last);
  // Layers last, last - 1, ... first. The gradients of trained arrays are added to what is in their `diff`.
  void backward(std::size_t first, std::size_t last);
  void clear_array_diffs();
  // The arrays of layers of the same names become those of `other`, in the same memory.
  void share_with(const KeptNet& other);

 private:
  // What is kept of a layer's last forward pass, for its backward pass.
  struct Graph {
    std::vector<at::Tensor> bottoms;  // leaves
    std::vector<at::Tensor> tops;
  };

  void list_blobs();
  void list_arrays();
  void find_gradients();
  std::vector<at::Tensor> leaves_of(std::size_t step) const;
  void run_backward(std::size_t step, std::vector<bool>& written, std::size_t last);
  void add_gradient(std::size_t making, const at::Tensor& gradient, std::vector<bool>& written);
  const std::shared_ptr<Blob>& blob_of(std::size_t making) const { return blobs_.at(net_.blobs()[making].name); }
  double loss_weight(std::size_t making) const;

  Net& net_;
  std::vector<std::string> names_;
  std::map<std::string, std::shared_ptr<Blob>> blobs_;
  std::vector<std::shared_ptr<Blob>> arrays_;  // by number in Net::arrays
  std::vector<std::vector<std::shared_ptr<Blob>>> arrays_of_;
  std::vector<bool> is_remade_;  // by making of a blob: a later layer works in place of it
  std::vector<bool> wants_;      // by making of a blob: its gradient is computed
  std::vector<Graph> graphs_;    // by step
  Pass next_;
};

}  // namespace poseidon::caffe::python
