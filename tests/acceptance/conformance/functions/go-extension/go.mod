module go-extension

go 1.21
