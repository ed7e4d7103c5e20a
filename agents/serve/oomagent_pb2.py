"""Message classes of oomagent.proto, made from its compiled form beside this file; the .pyi has their types.

protoc could write a module in place of this one, but what it writes runs only with protobuf packages of about its own
version, and this library shares its environment with others that want another.
"""

from __future__ import annotations

from importlib.resources import files

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory


def _load() -> None:
    compiled = descriptor_pb2.FileDescriptorSet.FromString(files(__package__).joinpath("oomagent.binpb").read_bytes())
    # A pool of its own: a client of oomstore in the same process may bring a file of the same name.
    pool = descriptor_pool.DescriptorPool()
    for file in compiled.file:
        pool.Add(file)
        found = pool.FindFileByName(file.name)
        globals()["DESCRIPTOR"] = found
        for name, message in found.message_types_by_name.items():
            globals()[name] = message_factory.GetMessageClass(message)


_load()
