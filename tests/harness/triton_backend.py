"""Stands for Triton's onnxruntime backend, which no package on the registry has: a backend in Python that asks
onnxruntime. It is run by Triton, in an environment of its own."""

import json
import os

import onnxruntime
import triton_python_backend_utils as triton


class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        return config

    def initialize(self, args):
        config = json.loads(args["model_config"])
        self.outputs = [output["name"] for output in config["output"]]
        self.inputs = [given["name"] for given in config["input"]]
        file = os.path.join(args["model_repository"], args["model_version"], config["default_model_filename"])
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        self.session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])

    def execute(self, requests):
        """Triton hands over what it has put into one batch; these are computed together, as its own backend does."""
        import numpy as np

        given = [
            {name: triton.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs}
            for request in requests
        ]
        together = {name: np.concatenate([one[name] for one in given]) for name in self.inputs}
        found = self.session.run(self.outputs, together)
        answers, start = [], 0
        for one in given:
            stop = start + len(one[self.inputs[0]])
            parts = [triton.Tensor(name, all_[start:stop]) for name, all_ in zip(self.outputs, found, strict=True)]
            answers.append(triton.InferenceResponse(parts))
            start = stop
        return answers
