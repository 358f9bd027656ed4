"""CLIENT LIST is read without redis-py's parser: names, and connections of workers without the agent."""

import redis

from morag_queue.broker.client_list import ClientConnection, ClientList, client_list

LINES = """\
id=3 addr=127.0.0.1:1 laddr=127.0.0.1:2 fd=8 name= age=1 idle=0 flags=N db=0 sub=0 psub=0 ssub=0 cmd=get user=a lib-name=mq.x
id=4 addr=127.0.0.1:1 fd=8 name=mq.w.h.1.run age=1 idle=0 flags=N db=2 sub=0 psub=1 ssub=0 cmd=brpop user=a lib-name=r
id=5 addr=127.0.0.1:1 fd=8 name= age=1 idle=0 flags=N db=0 sub=0 psub=1 ssub=0 cmd=psubscribe user=a
id=6 addr=127.0.0.1:1 fd=8 name=celery age=1 idle=0 flags=b db=0 sub=0 psub=0 ssub=0 cmd=brpop user=a
id=7 addr=127.0.0.1:1 fd=8 name=celery age=1 idle=0 flags=N db=10 sub=0 psub=0 ssub=0 cmd=brpoplpush user=a
"""  # noqa: E501


def test_connections_are_counted_by_name() -> None:
    assert ClientList(LINES.encode()).names == {"mq.w.h.1.run": 1, "celery": 2}


def test_a_listener_without_our_name_is_an_agentless_worker() -> None:
    found = ClientList(LINES.encode())
    assert found.agentless_workers == 1


def test_workers_without_remote_control_count_as_one_by_their_waiting_connections() -> None:
    waiting = "".join(line for line in LINES.splitlines(keepends=True) if "psub=1" not in line)
    assert ClientList((waiting + waiting).encode()).agentless_workers == 1


def test_named_connections_have_their_id_and_database() -> None:
    assert list(ClientList(LINES.encode()).named()) == [
        ClientConnection(4, "mq.w.h.1.run", 2), ClientConnection(6, "celery", 0), ClientConnection(7, "celery", 10),
    ]  # fmt: skip


def test_an_empty_list_has_no_connections() -> None:
    assert (ClientList().names, ClientList().agentless_workers, list(ClientList().named())) == ({}, 0, [])


def test_the_list_of_a_server_is_read_by_clients_that_decode_and_that_do_not(valkey: str) -> None:
    for decodes in (False, True):
        with redis.Redis.from_url(valkey, client_name="mq.me", decode_responses=decodes) as client:
            [found] = [one for one in client_list(client).named() if one.name == "mq.me"]
            assert found.connection_id == client.client_id()
