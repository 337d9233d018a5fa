"""Caffe's messages: caffe_pb2, made from Poseidon's own caffe.proto when Poseidon is built."""
from . import caffe_pb2 as caffe_pb2
