module bench-extension

go 1.21
