"""A client of Triton, in the environment of the server: `python triton_client.py ADDRESS MODEL COMMAND ...`.

Prints JSON. `config FILE`: what Triton's own protocol buffer reads in a config.pbtxt. `ask FILE.npz`: the probabilities
and the two likeliest labels of each image. `together FILE.npz`: all images at once, and how often Triton computed.
`keep FILE.npz STOP`: the first image again and again until the file STOP is there.
"""

import json
import os
import sys
import time

import numpy as np

IMAGES, PROBABILITIES = "images", "probabilities"


def main(address, model, command, *words):
    if command == "config":
        return _config(words[0])
    import tritonclient.http as http

    client = http.InferenceServerClient(address, concurrency=32)
    images = list(np.load(words[0]).values())
    if command == "ask":
        return [_ask(http, client, model, image) for image in images]
    if command == "together":
        before = _statistics(client, model)
        waiting = [client.async_infer(model, [_given(http, image)]) for image in images]
        found = [one.get_result().as_numpy(PROBABILITIES)[0].tolist() for one in waiting]
        after = _statistics(client, model)
        return {"probabilities": found, **{name: after[name] - before[name] for name in after}}
    versions, failures = [], []
    while not os.path.exists(words[1]):
        try:
            answer = client.infer(model, [_given(http, images[0])])
            version = answer.get_response()["model_version"]
            if version not in versions:
                versions.append(version)
        except Exception as error:
            failures.append(str(error))
        time.sleep(0.005)
    return {"versions": versions, "failures": failures}


def _given(http, image):
    given = http.InferInput(IMAGES, [1, *image.shape], "UINT8" if image.dtype == np.uint8 else "FP32")
    given.set_data_from_numpy(image[None])
    return given


def _ask(http, client, model, image):
    answer = client.infer(model, [_given(http, image)])
    likeliest = client.infer(
        model, [_given(http, image)], outputs=[http.InferRequestedOutput(PROBABILITIES, class_count=2)]
    )
    labels = [text.decode().split(":", 2)[2] for text in likeliest.as_numpy(PROBABILITIES)[0]]
    probabilities = answer.as_numpy(PROBABILITIES)[0].tolist()
    return {"version": answer.get_response()["model_version"], "probabilities": probabilities, "labels": labels}


def _statistics(client, model):
    found = client.get_inference_statistics(model)["model_stats"]
    return {name: sum(one[name] for one in found) for name in ("inference_count", "execution_count")}


def _config(file):
    from google.protobuf import json_format, text_format
    from tritonclient.grpc import model_config_pb2

    message = model_config_pb2.ModelConfig()
    with open(file) as text:
        text_format.Parse(text.read(), message)
    return json_format.MessageToDict(message, preserving_proto_field_name=True)


print(json.dumps(main(*sys.argv[1:])))
